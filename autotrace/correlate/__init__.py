"""Which exchange is the parent of which, and how we know; see docs/links.md."""

from autotrace.correlate.ladder import Correlator

__all__ = ["Correlator"]
