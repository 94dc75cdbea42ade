"""Arrays of this process: watch their memory, and act on it, as an ordinary user."""
