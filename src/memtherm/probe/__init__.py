"""Ways to see an access, one file each, and the choice among them."""
