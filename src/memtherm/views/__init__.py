"""Snapshots → rows and strips: numbers for people.  Imports `core` and `units` only."""
