"""BPF objects made by clang, and users with fewer rights."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_INTEGERS = """
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
"""
_NOBODY = ["setpriv", "--reuid=65534", "--clear-groups", "--no-new-privs"]


@pytest.fixture
def build(tmp_path: Path) -> Callable[[str], Path]:
    """Compile C with the types u8 to u64 into a BPF object with BTF. `struct at_abi` in it is kept."""
    assert shutil.which("clang"), "clang is part of the set-up"

    def compiled(source: str) -> Path:
        number = len(list(tmp_path.glob("built*.c")))
        text, built = tmp_path / f"built{number}.c", tmp_path / f"built{number}.bpf.o"
        keep = "struct at_abi at_abi;\n" if "struct at_abi" in source else ""
        text.write_text(_INTEGERS + source + keep)
        subprocess.run(["clang", "-target", "bpf", "-g", "-O2", "-c", text, "-o", built], check=True)
        return built

    return compiled


@pytest.fixture
def run_without_rights() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code as nobody, with no capability but those named."""

    def run(code: str, *arguments: str, capabilities: str = "") -> subprocess.CompletedProcess[str]:
        kept = [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"] if capabilities else []
        return subprocess.run(
            [*_NOBODY, *kept, sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    return run
