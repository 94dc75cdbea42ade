"""Everything that is Linux: system calls, /proc, /sys, libbpf.  Knows no region and no scheme."""
