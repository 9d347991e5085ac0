"""What to watch, with which links, and under which name."""
