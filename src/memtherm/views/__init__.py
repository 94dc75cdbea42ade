"""Snapshots and whole runs → rows, matrices, distributions: numbers for people.  Imports `core` and the base only."""
