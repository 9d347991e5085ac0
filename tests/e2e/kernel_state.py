"""The hooks that are in use, and what the kernel side of a running agent holds, seen from outside by bpftool."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from autotrace.kernel.source import attach, spec


def _descriptors(pid: int) -> list[dict[str, str]]:
    """What the kernel says of each descriptor of a process (proc_pid_fdinfo(5))."""
    found = []
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            lines = (line.partition(":") for line in info.read_text().splitlines())
            found.append({name: value.strip() for name, _, value in lines})
    return found


def _maps_of(pid: int) -> set[int]:
    return {int(info["map_id"]) for info in _descriptors(pid) if "map_id" in info}


def _bpftool(*arguments: str, kind: str = "map") -> Any:
    return json.loads(
        subprocess.run(["bpftool", "-j", kind, *arguments], capture_output=True, check=True).stdout
    )


def _map(agent: int, name: str) -> list[int]:
    # One by one: a list of all maps is cut short when one of them goes meanwhile.
    found = []
    for number in _maps_of(agent):
        with suppress(subprocess.CalledProcessError):
            if _bpftool("show", "id", str(number)).get("name") == name:
                found.append(number)
    return found


def loaded(agent: int) -> bool:
    """Tell if the agent with this pid watches something already."""
    try:
        return bool(entries(agent, "watched"))
    except (ValueError, RuntimeError):
        return False


def entries(agent: int, name: str) -> list[dict[str, Any]]:
    """The keys and values of a map of the agent with this pid, as the BTF of the map shows them."""
    (number,) = _map(agent, name)
    for _ in range(5):
        # An entry that goes while they are read is an error to bpftool, or has no value there.
        with suppress(subprocess.CalledProcessError, KeyError):
            return [entry["formatted"] for entry in _bpftool("dump", "id", str(number))]
        time.sleep(0.05)
    raise RuntimeError(f"bpftool cannot read the map {name}")


def program_id(agent: int, name: str) -> int:
    """The number of a program that the agent with this pid has loaded."""
    for info in _descriptors(agent):
        if "prog_type" in info and _bpftool("show", "id", info["prog_id"], kind="prog")["name"] == name:
            return int(info["prog_id"])
    raise RuntimeError(f"the agent has no program {name}")


def attached_programs(agent: int) -> set[int]:
    """The numbers of those that the agent with this pid has attached by a BPF link."""
    return {int(info["prog_id"]) for info in _descriptors(agent) if "link_id" in info}


def bpf_descriptors(pid: int) -> Counter[str]:
    """What of BPF and of perf events a process has open: each kind, and how many."""
    names = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            names.append(str(entry.readlink()))
    return Counter(name for name in names if "bpf" in name or "perf_event" in name)


def flavour_in_use() -> str:
    """The flavour that this run of the tests is about, or else the best."""
    wanted = os.environ.get("AUTOTRACE_HOOKS", "auto")
    if wanted != "auto":
        return wanted
    source = attach(wanted, spec)
    source.close()
    return source.flavour
