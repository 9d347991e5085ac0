"""Builds the gRPC peers of other languages: services/grpcjs, grpcjava, tonicgrpc from their package registries,
grpccpp with the system's library.

They stay in build/services, so that they are built once, until their sources change. Where a toolchain is missing
or cannot fetch what it needs, the test is skipped and says so.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conversation import BUILT
from harness import SERVICES

_UNREACHABLE = re.compile(
    r"ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|Unknown host|Connection refused|Could not transfer|"
    r"Could not resolve|couldn't connect|could not connect|failed to download",
    re.IGNORECASE,
)
_PATH = f"{os.environ['PATH']}:{Path.home()}/.cargo/bin"
"""Where the tools are; Rust's own installer puts cargo where sudo does not look."""

_CPP_HEADER = Path("/usr/include/grpcpp/grpcpp.h")
_CARGO = (1, 85)
_JARS = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


def build_peer(name: str) -> str:
    """The command that runs a peer, to which its arguments are added: `cpp`, `js`, `java` or `tonic`."""
    build, folder, tools, command = _PEERS[name]
    for tool in tools:
        if not shutil.which(tool, path=_PATH):
            pytest.skip(f"needs {tool}, to build the gRPC peer {folder}")
    sources = SERVICES / folder
    directory = BUILT / folder
    digest = _digest(sources)
    stamp = directory / "built"
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(sources, directory)
        build(directory)
        stamp.write_text(digest)
    return command


def _digest(sources: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in sources.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(sources)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _run(directory: Path, *command: str) -> None:
    environment = {**os.environ, "PATH": _PATH}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=280
    )
    said = done.stdout + done.stderr
    if done.returncode and _UNREACHABLE.search(said):
        pytest.skip(f"{command[0]} cannot fetch what the gRPC peer {directory.name} needs")
    assert not done.returncode, said


def _build_cpp(directory: Path) -> None:
    if not _CPP_HEADER.exists():
        pytest.skip("needs libgrpc++-dev, to build the gRPC peer grpccpp")
    libraries = ("-Wl,--copy-dt-needed-entries", "-lgrpc++", "-lgrpc")
    _run(directory, "g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-o", "busy", "busy.cc", *libraries)


def _need_cargo(directory: Path) -> None:
    """The test is skipped with a cargo that is too old for the 2024 edition of Rust, and for tonic's libraries."""
    environment = {**os.environ, "PATH": _PATH}
    said = subprocess.run(
        ["cargo", "--version"], cwd=directory, env=environment, capture_output=True, text=True, timeout=60
    ).stdout
    version = re.match(r"cargo (\d+)\.(\d+)", said)
    if version is None or tuple(map(int, version.groups())) < _CARGO:
        needed = ".".join(map(str, _CARGO))
        pytest.skip(
            f"needs cargo {needed} or newer, to build the gRPC peer {directory.name}; here: {said.strip()}"
        )


def _build_js(directory: Path) -> None:
    _run(directory, "npm", "ci", "--no-audit", "--no-fund", "--loglevel=error")


def _build_java(directory: Path) -> None:
    jars = directory / "jars"
    _run(directory, "mvn", "-q", "-B", _JARS, f"-DoutputDirectory={jars}", "-DincludeScope=runtime")
    _run(directory, "javac", "-Xlint:all", "-cp", f"{jars}/*", "-d", str(directory / "classes"), "Peer.java")


def _build_tonic(directory: Path) -> None:
    """Cargo's lock file names the registry's address in every entry, which ours, pinned.lock, leaves out: it is
    taken from a lock file that cargo makes here."""
    _need_cargo(directory)
    lock = directory / "Cargo.lock"
    _run(directory, "cargo", "generate-lockfile", "--quiet")
    source = re.search(r'^source = ".*"$', lock.read_text(), re.MULTILINE)
    assert source is not None
    pinned = (directory / "pinned.lock").read_text()
    lock.write_text(re.sub("^checksum = ", f"{source[0]}\nchecksum = ", pinned, flags=re.MULTILINE))
    _run(directory, "cargo", "build", "--quiet", "--locked")


_PEERS = {
    "cpp": (_build_cpp, "grpccpp", ("g++",), f"{BUILT}/grpccpp/busy"),
    "js": (_build_js, "grpcjs", ("node", "npm"), f"node {BUILT}/grpcjs/peer.js"),
    "java": (
        _build_java,
        "grpcjava",
        ("java", "javac", "mvn"),
        f"java -XX:+UseSerialGC -cp '{BUILT}/grpcjava/classes:{BUILT}/grpcjava/jars/*' Peer",
    ),
    "tonic": (_build_tonic, "tonicgrpc", ("cargo",), f"{BUILT}/tonicgrpc/target/debug/tonicgrpc"),
}
"""By name: what builds it, the folder, the tools that it takes, and the command that it makes."""
