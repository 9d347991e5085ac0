"""Hooks that attach by half: all of them are taken away again, and the next flavour is tried."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import SERVICES, Traced, cli, drive, free_ports, listening, log_entries, wait_for
from kernel_state import bpf_descriptors, flavour_in_use, loaded

from autotrace.errors import AutotraceError
from autotrace.kernel.source import FLAVOURS, attach, spec

REPOSITORY = Path(__file__).parents[2]
UNATTACHABLE = """
SEC("raw_tp/autotrace_no_such_tracepoint")
int zz_cannot_attach(struct bpf_raw_tracepoint_args *ctx)
{
	return 0;
}
"""


@pytest.fixture
def half_attachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The agent that this makes the tests start is a copy whose first choice is the flavour in use, but with one
    more program, which the kernel loads and cannot attach. Gives that flavour."""
    if not shutil.which("clang"):
        pytest.skip("needs clang")
    flavour = flavour_in_use()
    copy = tmp_path / "copy"
    for package in ("autotrace", "symbols"):
        shutil.copytree(REPOSITORY / package, copy / package)
    source = tmp_path / "broken.bpf.c"
    source.write_text(f'#include "{REPOSITORY}/bpf/socket/{flavour}.bpf.c"\n{UNATTACHABLE}')
    flags = ["-g", "-O2", "-target", "bpf", "-mcpu=v3", "-D__TARGET_ARCH_x86", f"-I{REPOSITORY}/bpf/include"]
    broken = copy / "autotrace" / "bpf" / f"{FLAVOURS[0]}.bpf.o"
    subprocess.run(["clang", *flags, "-c", source, "-o", broken], check=True)
    monkeypatch.chdir(copy)  # `python -m` looks here first
    monkeypatch.delenv("AUTOTRACE_HOOKS", raising=False)
    return flavour


def test_the_next_flavour_is_used_and_works(tmp_path: Path, half_attachable: str) -> None:
    (port,) = free_ports(1)
    log = tmp_path / "log"
    next_flavour = next(name for name in FLAVOURS[1:] if not _why_not(name))
    command = [sys.executable, str(SERVICES / "backend.py"), str(port), str(log)]
    with Traced(tmp_path / "agent", command) as agent:
        wait_for(lambda: loaded(agent.process.pid), "the programs to be loaded", 300)
        wait_for(lambda: listening(port), "the backend")
        drive(port, [f"/id/{i}" for i in range(40)], 4)
        wait_for(lambda: agent.status()["ledger"]["exchanges"]["emitted"] == 40, "the spans")
        found = bpf_descriptors(agent.process.pid)
        result = agent.finish()
    assert f"attached by {next_flavour}" in result.said
    result.check_ledger()
    assert sorted(span.path for span in result.spans) == sorted(entry["path"] for entry in log_entries(log))
    assert len(result.spans) == 40
    # The same as without the failure before.
    with Traced(tmp_path / "other", ["sleep", "60"], ("--hooks", next_flavour)) as other:
        wait_for(lambda: bpf_descriptors(other.process.pid) == found, f"just these: {found}", 300)


def test_a_flavour_that_was_asked_for_is_the_only_one_tried(tmp_path: Path, half_attachable: str) -> None:
    quiet = ("--console", "off", "--metrics-port", "0", "--runtime-dir", str(tmp_path))
    ended = cli("run", "--hooks", FLAVOURS[0], *quiet, "--", "touch", str(tmp_path / "ran"))
    assert ended.returncode == 1
    assert not (tmp_path / "ran").exists()
    sentence = ended.stderr.splitlines()[-1]
    assert sentence == (
        f"Error: these socket hooks do not work here: {FLAVOURS[0]}: program zz_cannot_attach could not be "
        "attached: ENOENT (No such file or directory); `autotrace doctor` says what this kernel allows"
    )


def test_too_few_file_descriptors() -> None:
    flavour = flavour_in_use()
    ran = subprocess.run(
        [sys.executable, "-m", "tests.e2e.services.attach_with_few_files", flavour],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    first, *tries, last = [json.loads(line) for line in ran.stdout.splitlines()]
    assert first["needed"] > 20
    for each in (*tries, last):
        assert each["left"] == [], each
    assert last["error"] == ""
    for each in tries:
        assert each["error"].startswith(f"these socket hooks do not work here: {flavour}: "), each
        assert "EMFILE (Too many open files)" in each["error"], each
        assert "\n" not in each["error"]


def test_a_kernel_with_no_flavour_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None can be attached where no more than a few descriptors are allowed; one sentence says so of each."""
    monkeypatch.delenv("AUTOTRACE_HOOKS", raising=False)
    quiet = ("--console", "off", "--metrics-port", "0", "--runtime-dir", str(tmp_path))
    ended = cli("run", *quiet, "--", "touch", str(tmp_path / "ran"), before=("prlimit", "--nofile=12:12"))
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "ran").exists()
    sentence = ended.stderr.splitlines()[-1]
    assert re.fullmatch(
        r"Error: no socket hooks work here: fentry: .+; kprobe: .+; tracepoint: .+; `autotrace doctor` says .+",
        sentence,
    )


def _why_not(flavour: str) -> str:
    try:
        attach(flavour, spec).close()
    except AutotraceError as error:
        return str(error)
    return ""
