"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes depends on what else the machine does: no test judges by time.
settings.register_profile("autotrace", deadline=None)
settings.load_profile("autotrace")
