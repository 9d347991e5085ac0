"""What the kernel side of a running agent holds, seen from outside by bpftool."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any


def _maps_of(pid: int) -> set[int]:
    found = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        found |= {
            int(line.split()[1]) for line in info.read_text().splitlines() if line.startswith("map_id:")
        }
    return found


def _bpftool(*arguments: str) -> list[dict[str, Any]]:
    output = subprocess.run(["bpftool", "-j", "map", *arguments], capture_output=True, check=True).stdout
    return list(json.loads(output))


def loaded(agent: int) -> bool:
    """Tell if the agent with this pid has made its maps."""
    return bool(_maps_of(agent))


def entries(agent: int, name: str) -> list[dict[str, Any]]:
    """The keys and values of a map of the agent with this pid, as the BTF of the map shows them."""
    held = _maps_of(agent)
    (found,) = (entry for entry in _bpftool("show") if entry["id"] in held and entry.get("name") == name)
    return [entry["formatted"] for entry in _bpftool("dump", "id", str(found["id"]))]
