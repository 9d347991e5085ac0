"""What holds for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

PACKAGE = Path(__file__).parents[1] / "autotrace"

# How long an example takes depends on what else the machine does: no test judges by time.
settings.register_profile("autotrace", deadline=None)
settings.load_profile("autotrace")


def pytest_configure() -> None:
    """Python prefers a compiled module to its source, however old it is: what was changed would not be tested."""
    for extension in PACKAGE.rglob("*.so"):
        source = extension.with_name(f"{extension.name.partition('.')[0]}.py")
        if source.exists() and source.stat().st_mtime > extension.stat().st_mtime:
            raise pytest.UsageError(
                f"{source.relative_to(PACKAGE.parent)} is newer than its compiled form: run `make compiled`, or "
                "`make interpreted` to do without."
            )
