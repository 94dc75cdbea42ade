"""Ways to act, what must not be touched, and what really happened.  `apply.py` is the one path that acts."""
