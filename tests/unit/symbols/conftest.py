"""Go programs of many toolchains, built once and kept in build/."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[3] / "build" / "go-programs"
ALWAYS = ("local", "1.18.10")
"""Toolchains that each run uses. The others are 70 MB to fetch and a minute to build with, each."""
SOURCE = """package main

type account struct {
	name    [3]byte
	balance int64
}

//go:noinline
func manyReturns(n int) int {
	switch {
	case n > 1000:
		return n * 3
	case n > 100:
		return manyReturns(n/2) + 0xc3c3c3
	case n < 0:
		panic("negative")
	}
	for n < 50 {
		n += manyReturns(n + 60)
	}
	return n
}

//go:noinline
func (a *account) add(n int) { a.balance += int64(manyReturns(n)) }

func main() {
	a := &account{}
	go a.add(7)
	a.add(len(a.name))
	println(a.balance)
}
"""


def go_tool() -> str:
    """The Go of this machine; skips where there is none."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    if not Path(go).exists():
        pytest.skip("there is no Go toolchain here")
    return go


@pytest.fixture(scope="session")
def go_program() -> Iterator[Callable[..., Path]]:
    """Build the program with a toolchain ("local", "1.22.12") and flags; skips where it cannot be had."""
    go = go_tool()

    def build(version: str, *flags: str) -> Path:
        name = "-".join([version, *(flag.strip("-").replace("=", "-") for flag in flags)]).replace(" ", "")
        folder = CACHE / name
        program = folder / "program"
        source = folder / "main.go"
        if program.exists() and source.read_text() == SOURCE:
            return program
        if version not in ALWAYS and not os.environ.get("AUTOTRACE_GO_TOOLCHAINS"):
            pytest.skip(f"Go {version} is fetched only with AUTOTRACE_GO_TOOLCHAINS=all")
        folder.mkdir(parents=True, exist_ok=True)
        program.unlink(missing_ok=True)
        (folder / "go.mod").write_text("module example.com/accounts\n\ngo 1.16\n")
        source.write_text(SOURCE)
        environment = {
            **os.environ,
            "GOTOOLCHAIN": "local" if version == "local" else f"go{version}",
            "GOPATH": str(CACHE / "path"),
            "GOFLAGS": "-modcacherw",
            "CGO_ENABLED": "1",
        }
        asked = subprocess.run([go, "version"], env=environment, capture_output=True, text=True)
        if asked.returncode:
            pytest.skip(f"Go {version} cannot be fetched: {asked.stderr.strip().splitlines()[-1]}")
        command = [go, "build", *flags, "-o", "program", "."]
        subprocess.run(command, cwd=folder, env=environment, check=True)
        return program

    yield build
    shutil.rmtree(CACHE / "path", ignore_errors=True)  # toolchains of 250 MB each
