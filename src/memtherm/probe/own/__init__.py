"""Ways to see accesses to memory of this process, which need no privilege."""
