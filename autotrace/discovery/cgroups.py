"""Container ids and systemd units, from the control groups of a process."""

from __future__ import annotations

import re

_CONTAINER = re.compile(r"(?:^|[-:/])([0-9a-f]{64})(?:\.scope)?(?:/|$)")
"""The id as docker, containerd, CRI-O and podman put it into a control group's name: alone or after a prefix
(`/docker/ID`, `docker-ID.scope`, `cri-containerd-ID.scope`, `...:cri-containerd:ID`, `libpod-ID.scope`)."""

_HOSTNAME_MOUNT = re.compile(
    r"/(?:containers|overlay-containers)/([0-9a-f]{64})/\S* /etc/hostname ", re.MULTILINE
)
"""docker and podman mount a file out of the container's directory over /etc/hostname."""

_SERVICE = re.compile(r"^/system\.slice/(?:[^/]+\.slice/)*([^/]+)\.service(?:/|$)")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")

_SUPERVISORS = frozenset(
    {
        "atd",
        "containerd",
        "cron",
        "crond",
        "docker",
        "kubelet",
        "podman",
        "ssh",
        "sshd",
        "supervisor",
        "supervisord",
    }
)
"""Units that start programs of all kinds: their name says nothing about what runs in them."""


def container_id(cgroup: str) -> str:
    """Container id in the text of /proc/PID/cgroup, version 1 or 2; "" if there is none."""
    for path in _paths(cgroup):
        found = _CONTAINER.findall(path)
        if found:
            return str(found[-1])  # the innermost one
    return ""


def container_id_from_mounts(mountinfo: str) -> str:
    """Container id in the text of /proc/PID/mountinfo, for a process that sees its own control group as the
    root; "" if there is none."""
    found = _HOSTNAME_MOUNT.search(mountinfo)
    return found[1] if found else ""


def is_root(cgroup: str) -> bool:
    """Tell whether a process is in the root control group as far as can be seen from here."""
    return all(path == "/" for path in _paths(cgroup))


def service_unit(cgroup: str) -> str:
    """Name of the systemd service a process belongs to, without `.service`; "" for sessions, user services,
    containers and supervisors."""
    if container_id(cgroup):
        return ""
    for path in _paths(cgroup):
        found = _SERVICE.match(path)
        if found:
            unit = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), found[1])
            return "" if unit in _SUPERVISORS else unit
    return ""


def _paths(cgroup: str) -> list[str]:
    return [line.split(":", 2)[2] for line in cgroup.splitlines() if line.count(":") >= 2]
