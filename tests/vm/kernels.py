"""Debian's kernels, fetched once into build/vm/kernels with apt and never installed.

Each Debian suite has one kernel version. A suite is read through an apt state of its own, so the machine's own
package lists stay as they are. The mirror is the one that the machine's apt is configured with.
"""

from __future__ import annotations

import json
import lzma
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

BUILD = Path(__file__).parents[2] / "build" / "vm"
SUITES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie"}
"""Kernel version to the Debian suite that has it."""

ARCHITECTURE = "amd64"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MODULES = (
    "virtio_pci",
    "virtio_console",
    "9p",
    "9pnet_virtio",
    "overlay",
    "veth",
    "inet_diag",
    "tcp_diag",
    "unix_diag",
    "tls",
    "gcm",
    "ctr",
    "ghash_generic",
)
"""What a guest loads, each after the modules it depends on. There is no module loader in a guest: what a test
needs must be here."""


class KernelUnavailableError(Exception):
    """A kernel cannot be had on this machine; the text says why, in one sentence."""


class Kernel(NamedTuple):
    """The files of one kernel."""

    version: str
    """Such as `6.1`."""
    release: str
    """What `uname -r` says in the guest."""
    image: Path
    modules: tuple[Path, ...]
    """Uncompressed, in the order in which they must be loaded."""


def get(version: str) -> Kernel:
    """The kernel, from the cache or else from the mirror (70 to 100 MB).

    Raises KernelUnavailableError.
    """
    if version not in SUITES:
        raise KernelUnavailableError(f"there is no kernel {version} here: choose from {', '.join(SUITES)}")
    cached = BUILD / "kernels" / version
    found = cached / "kernel.json"
    if not found.exists():
        print(f"    getting Debian's kernel {version} from {SUITES[version]}", flush=True)
        shutil.rmtree(cached, ignore_errors=True)
        package = _download(SUITES[version], cached)
        release, modules = _unpack(package, cached)
        package.unlink()
        found.write_text(json.dumps({"release": release, "modules": modules}))
    facts = json.loads(found.read_text())
    return Kernel(version, facts["release"], cached / "vmlinuz", tuple(cached / m for m in facts["modules"]))


def _run(command: list[str], what: str, directory: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelUnavailableError(f"{what}: {error}") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or [done.stderr[-300:]]
        raise KernelUnavailableError(f"{what}: {said[0].strip()}")
    return done.stdout


# --- the package --------------------------------------------------------------------------------------------


def _mirror() -> str:
    """The URI of the Debian archive that the machine's apt uses."""
    listed = _run(
        ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)", "Created-By: Packages"],
        "apt's configuration cannot be read",
    )
    for uri in listed.splitlines():
        if Path(urlsplit(uri).path).name == "debian":
            return uri
    raise KernelUnavailableError("apt's configuration on this machine names no mirror of the Debian archive")


def _download(suite: str, directory: Path) -> Path:
    """The .deb with the suite's newest kernel for ordinary machines, downloaded to `directory`.

    The flavour for clouds will not do: it lacks 9p.
    """
    state = BUILD / "apt" / suite
    for each in (state / "lists" / "partial", state / "archives" / "partial", directory):
        each.mkdir(parents=True, exist_ok=True)
    signed_by = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    sources = state / "sources.list"
    sources.write_text(f"deb {signed_by}{_mirror()} {suite} main\n")
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": state / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": state,
        "APT::Architecture": ARCHITECTURE,
        "APT::Sandbox::User": "root",
        "APT::Update::Post-Invoke": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Acquire::http::Timeout": "60",
    }
    settings = [argument for option in options.items() for argument in ("-o", "{}={}".format(*option))]
    _run(["apt-get", *settings, "--error-on=any", "update"], f"the mirror has no Debian {suite}")
    shown = _run(
        ["apt-cache", *settings, "show", "--no-all-versions", f"linux-image-{ARCHITECTURE}"],
        f"Debian {suite} has no kernel",
    )
    named = re.search(rf"^Depends: (linux-image-[\w.+-]*-{ARCHITECTURE})\b", shown, re.MULTILINE)
    if not named:
        raise KernelUnavailableError(f"the package of Debian {suite}'s kernel has an unexpected form")
    _run(
        ["apt-get", *settings, "download", named[1]], f"Debian {suite}'s kernel cannot be fetched", directory
    )
    (package,) = directory.glob("*.deb")
    shutil.rmtree(state)
    return package


# --- its contents -------------------------------------------------------------------------------------------


def _unpack(package: Path, directory: Path) -> tuple[str, list[str]]:
    """Keep the kernel and the modules for MODULES; give the kernel's release and the modules' file names."""
    tree = directory / "tree"
    _run(["dpkg-deb", "--extract", str(package), str(tree)], f"{package.name} cannot be unpacked")
    (image,) = tree.glob("boot/vmlinuz-*")
    shutil.copyfile(image, directory / "vmlinuz")
    available = {path.name.partition(".ko")[0].replace("-", "_"): path for path in tree.rglob("*.ko*")}
    names = list(_in_order(MODULES, available, set()))
    for name in names:
        (directory / f"{name}.ko").write_bytes(_read_module(available[name]))
    shutil.rmtree(tree)
    return image.name.removeprefix("vmlinuz-"), [f"{name}.ko" for name in names]


def _in_order(wanted: tuple[str, ...], available: dict[str, Path], seen: set[str]) -> Iterator[str]:
    """`wanted` and all they depend on, each after its dependencies. What is built in has no file."""
    for name in wanted:
        if name in seen or name not in available:
            continue
        seen.add(name)
        depends = re.search(rb"\0depends=([^\0]*)\0", _read_module(available[name]))
        needed = depends[1].decode().replace("-", "_").split(",") if depends else []
        yield from _in_order(tuple(needed), available, seen)
        yield name


def _read_module(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content
