"""The kernel's own DAMON as an engine: its sysfs tree, whose it is, and kdamonds of ours in it."""
