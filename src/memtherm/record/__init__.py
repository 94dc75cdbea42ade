"""Records: one file that only grows, survives damage, and opens anywhere; docs/records.md has the format."""
