"""Joins a monitor, schemes, actors and sinks: the one composition for library users and commands."""
