"""What `autotrace explain PID` says about a process: data only."""

from __future__ import annotations

import platform
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import NamedTuple

from autotrace.discovery.libraries import LibraryFinder, Mapping, Use, code_mappings
from autotrace.discovery.processes import Describer, Identity
from autotrace.discovery.procfs import Procfs
from autotrace.discovery.tls_inside import library_inside
from autotrace.probes import libraries
from symbols.go import links_function
from symbols.go_grpc_offsets import MODULE as GRPC_GO_MODULE

_UNSEEN_TLS = {
    "libssl3.so*": "NSS",
    "libmbedtls.so*": "Mbed TLS",
    "libwolfssl.so*": "wolfSSL",
    "libs2n.so*": "s2n-tls",
    "libbotan-*.so*": "Botan",
    "libconscrypt*.so*": "Conscrypt, which has BoringSSL inside,",
    "libnetty_tcnative*.so*": "netty-tcnative, which has BoringSSL inside without symbols,",
    "cygrpc*.so": "grpcio, which has BoringSSL inside without symbols,",
    "envoy": "Envoy, which has BoringSSL inside,",
    "bun": "Bun, which has BoringSSL inside without symbols,",
    "deno": "Deno, which has rustls inside,",
}
"""Base names of files whose TLS has no probes, and what is in them."""

_UNASKED_HTTP2 = "libnghttp2.so*"
"""The base name of a library that does not export what a runtime is asked by."""

_NOT_SEEN = "what it encrypts is only counted"
_ABOUT_OLD = " about HTTP/2 connections older than the agent"
_GO_TLS_FUNCTION = "crypto/tls.(*Conn).Write"
_CONTEXTS_ARE_READ_ON = "x86_64"
_NO_ANSWER = "links by answer, for pools of threads that serve gRPC, are not made"


class State(Enum):
    """How a finding is to be read: it works, it does not, or it is just so."""

    YES = "yes"
    NO = "no"
    INFO = "info"


class Finding(NamedTuple):
    """One thing that is true of a process; `text` is a clause without a full stop."""

    topic: str
    state: State
    text: str


def explain(pid: int, describer: Describer, procfs: Procfs | None = None) -> list[Finding] | None:
    """Say what a process is, which links are used for it and what is not seen of it; None if it is gone."""
    procfs = procfs or Procfs()
    identity = describer.identify(pid)
    if identity is None:
        return None
    process, manifest = identity.process, identity.match.manifest
    findings = [
        Finding("program", State.INFO, process.executable),
        Finding("service", State.INFO, f"{process.service}, from {identity.name_source}"),
        Finding("runtime", State.INFO, f"{manifest.display}: {identity.match.reason}"),
        Finding("links", State.YES, "header and wire, as for every process"),
    ]
    if manifest.links:
        findings.append(Finding("links", State.YES, f"{' and '.join(manifest.links)}: {manifest.why}"))
    else:
        findings.append(Finding("links", State.NO, f"none by thread: {manifest.why}"))
    findings += _goroutines(identity)
    findings += _contexts(identity)
    try:
        uses = LibraryFinder(libraries.load(), procfs).find(pid)
        findings += _tasks(identity, [use for use in uses if use.library.kind is libraries.Kind.STREAMS])
        findings += _unasked(pid, procfs)
        tls = [use for use in uses if use.library.kind is libraries.Kind.TLS]
        findings += _tls(pid, identity, tls, procfs)
        findings += _sockets(pid, procfs)
    except PermissionError as error:
        findings.append(Finding("access", State.NO, f"{error.filename} may not be read; run this as root"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    return findings


def _goroutines(identity: Identity) -> list[Finding]:
    go = identity.go
    if go is None:
        return []
    version = go.build.go_version
    if go.offsets is None:
        text = f"{version} is not known here and the program is stripped: no link is made by them"
        return [Finding("goroutines", State.NO, text)]
    return [
        Finding(
            "goroutines", State.YES, f"{version} keeps their ids at offset {go.offsets.goid} of runtime.g"
        )
    ]


def _contexts(identity: Identity) -> list[Finding]:
    """Whether the kernel side can tell which contextvars.Context a thread of Python is in."""
    process = identity.process
    if process.runtime != "python":
        return []
    offsets = process.python_offsets
    if offsets is None:
        name = PurePath(process.executable).name
        text = f"where {name} keeps a thread's contextvars.Context is not known here: {_NO_ANSWER}"
        return [Finding("contexts", State.NO, text)]
    if platform.machine() != _CONTEXTS_ARE_READ_ON:
        text = f"a thread's contextvars.Context is read on {_CONTEXTS_ARE_READ_ON} alone: {_NO_ANSWER}"
        return [Finding("contexts", State.NO, text)]
    text = (
        f"a thread's contextvars.Context stands at offset {offsets.context} of its PyThreadState (glibc): it tells "
        "which calls were made for the request that the thread answers"
    )
    return [Finding("contexts", State.YES, text)]


def _tls(pid: int, identity: Identity, uses: list[Use], procfs: Procfs) -> list[Finding]:
    findings = [_library(use) for use in uses]
    probed = {use.path for use in uses}
    for mapping in code_mappings(procfs, pid):
        if mapping.path not in probed and (library := _unseen_library(pid, mapping, procfs)):
            text = f"{library} is mapped ({mapping.path}) and no probe fits it: {_NOT_SEEN}"
            findings.append(Finding("tls", State.NO, text))
    builtin = identity.match.manifest.builtin_tls
    if builtin and identity.go is not None:
        builtin = builtin if links_function(procfs.path(pid, "exe"), _GO_TLS_FUNCTION) else ""
    if builtin and not probed:
        text = f"{builtin} is part of the program and no probe fits it: {_NOT_SEEN}"
        findings.append(Finding("tls", State.NO, text))
    return findings or [Finding("tls", State.INFO, "no TLS library was found in it")]


def _unseen_library(pid: int, mapping: Mapping, procfs: Procfs) -> str:
    """The TLS library that a file is, by its name, or probably has inside; "" if none is known of."""
    name = PurePath(mapping.path).name
    for pattern, library in _UNSEEN_TLS.items():
        if fnmatchcase(name, pattern):
            return library
    try:
        inside = library_inside(procfs.path(pid, f"map_files/{mapping.addresses}"))
    except OSError:
        return ""
    return f"probably {inside}, without symbols," if inside else ""


def _tasks(identity: Identity, uses: list[Use]) -> list[Finding]:
    """What the runtime is asked of requests, and by which probes."""
    findings = [
        Finding(
            "tasks",
            State.YES,
            f"{use.library.display} is asked{_ABOUT_OLD * use.library.old_connections}, unless --runtime-probes "
            "rules it out, at "
            f"{', '.join(each.names[0] for each in use.library.functions if each.enters or each.returns)}",
        )
        for use in uses
    ]
    go = identity.go
    if go is not None and go.grpc_stream is None and go.build.dependency(GRPC_GO_MODULE):
        version = go.build.dependency(GRPC_GO_MODULE)
        text = f"gRPC-Go {version} is not known here and the program is stripped: its server is not asked"
        findings.append(Finding("tasks", State.NO, text))
    return findings


def _unasked(pid: int, procfs: Procfs) -> list[Finding]:
    text = (
        "nghttp2 in {} cannot be asked, because it does not export what would be: of a request on an HTTP/2 "
        "connection older than the agent no more is known than its own bytes tell"
    )
    return [
        Finding("tasks", State.NO, text.format(path))
        for path in sorted(procfs.mapped_files(pid))
        if fnmatchcase(PurePath(path).name, _UNASKED_HTTP2)
    ]


def _library(use: Use) -> Finding:
    where = f"{use.library.display} in {use.path}"
    if use.missing:
        text = f"{where} does not export {', '.join(use.missing)}: {_NOT_SEEN}"
        return Finding("tls", State.NO, text)
    return Finding("tls", State.YES, f"{where}: what it encrypts is seen, unless --tls rules it out")


def _sockets(pid: int, procfs: Procfs) -> list[Finding]:
    descriptors = procfs.descriptors(pid)
    held = procfs.sockets(pid)
    tcp = procfs.tcp_listeners(pid)
    unix = procfs.unix_listeners(pid)
    findings = [
        Finding("sockets", State.INFO, f"listens on TCP port {port}")
        for port in sorted({port for inode, port in tcp.items() if inode in held})
    ]
    findings += [
        Finding("sockets", State.INFO, f"listens on Unix socket {path}")
        for path in sorted({path for inode, path in unix.items() if inode in held})
    ]
    findings.append(Finding("sockets", State.INFO, f"{len(held)} sockets open"))
    if "anon_inode:[io_uring]" in descriptors:
        text = "it uses io_uring: fentry and kprobe hooks see what moves through it, tracepoint hooks do not"
        findings.append(Finding("sockets", State.INFO, text))
    return findings
