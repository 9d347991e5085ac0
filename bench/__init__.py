"""Measures what autotrace costs and how fast it is: `make bench`. See docs/performance.md."""
