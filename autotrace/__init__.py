"""autotrace: zero-code distributed tracing and RED metrics for Linux services."""

__version__ = "0.1.0"
