"""Rows and arrays of `views` → pictures and one HTML page.  Imports `views` and `core` only."""
