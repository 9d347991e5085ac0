"""What the doctor finds, on this machine, with all rights and with few."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from autotrace.kernel.features import Feature, probe
from autotrace.kernel.object import PARANOID

OPEN_FILES = Path("/proc/self/fd")
Run = Callable[..., subprocess.CompletedProcess[str]]

PROBE = """
import json
from autotrace.kernel.features import probe
print(json.dumps(probe()))
"""

LITTLE_LOCKED_MEMORY = """
import resource
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
"""

ENOUGH = "+bpf,+perfmon,+sys_ptrace,+dac_read_search,+checkpoint_restore"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, to load BPF programs and to give up rights"
)


def probed(run: Run, capabilities: str = "", first: str = "") -> dict[str, Feature]:
    done = run(first + PROBE, capabilities=capabilities)
    assert done.stderr == ""
    return {feature.name: feature for feature in (Feature(*each) for each in json.loads(done.stdout))}


def test_root_has_all_that_is_needed() -> None:
    found = {feature.name: feature for feature in probe()}
    assert not [feature for feature in found.values() if feature.needed and not feature.ok]
    assert found["privileges"].detail == "CAP_SYS_ADMIN"
    assert found["ring buffer"].ok
    assert found["sweep (BPF iterator)"].ok
    assert found["TLS libraries"].ok
    assert found["Go services"].ok


def test_probing_leaves_nothing_open() -> None:
    probe()
    before = len(list(OPEN_FILES.iterdir()))
    probe()
    assert len(list(OPEN_FILES.iterdir())) == before


def test_without_rights_it_says_which_are_missing(run_without_rights: Run) -> None:
    found = probed(run_without_rights)
    privileges = found["privileges"]
    assert (privileges.ok, privileges.needed) == (False, True)
    assert (
        privileges.detail
        == "missing CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE"
    )
    assert "run as root" in privileges.advice
    # Nothing is tried that must fail for the same reason.
    assert [name for name, feature in found.items() if not feature.ok] == ["privileges"]


def test_the_rights_to_load_without_those_to_read(run_without_rights: Run) -> None:
    found = probed(run_without_rights, "+bpf,+perfmon")
    assert found["privileges"].ok
    assert found["privileges"].detail == "missing CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE"
    refused = [feature for feature in found.values() if "tracing/events/syscalls" in feature.detail]
    assert refused
    for feature in refused:
        assert not feature.ok
        assert feature.detail.endswith("may not be read: run as root, or with CAP_DAC_READ_SEARCH")


def test_the_five_capabilities_that_it_names_are_enough(run_without_rights: Run) -> None:
    found = probed(run_without_rights, ENOUGH)
    assert found["privileges"].detail == "CAP_BPF, CAP_PERFMON and what /proc needs"
    refused = {feature.name: feature.detail for feature in found.values() if not feature.ok}
    if int(PARANOID.read_text()) > 2 and "socket hooks" in refused:
        # Debian's and Ubuntu's kernels have that level; others take the number for 2.
        assert (
            "`sysctl kernel.perf_event_paranoid=2`, or grant CAP_SYS_ADMIN"
            in refused["socket hooks: tracepoint"]
        )
    else:
        assert not [feature for feature in found.values() if feature.needed and not feature.ok]


def test_little_locked_memory_is_enough_or_said_to_be_too_little(run_without_rights: Run) -> None:
    """It is enough from Linux 5.11 on."""
    found = probed(run_without_rights, ENOUGH, LITTLE_LOCKED_MEMORY)
    refused = [feature for feature in found.values() if "counts BPF maps as locked memory" in feature.detail]
    if all(feature.ok for feature in found.values() if feature.needed):
        assert not refused
    else:
        assert {feature.name for feature in refused} >= {"socket hooks: kprobe", "socket hooks: tracepoint"}
        assert all("64 KiB are allowed: run `ulimit -l unlimited`" in feature.detail for feature in refused)
