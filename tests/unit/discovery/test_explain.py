"""What is said of a process is true of it."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autotrace.discovery.explain import Finding, State, explain
from autotrace.discovery.processes import Describer
from autotrace.probes import Manifests

MANIFESTS = Manifests.load()
GRPC_CORE = Path("/usr/lib/x86_64-linux-gnu/libgrpc.so.29")


def texts(findings: list[Finding] | None, topic: str) -> str:
    assert findings is not None
    return "\n".join(finding.text for finding in findings if finding.topic == topic)


def test_this_process(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        unix.bind(path)
        unix.listen()
        findings = explain(os.getpid(), Describer(MANIFESTS))
        assert f"listens on TCP port {tcp.getsockname()[1]}" in texts(findings, "sockets")
        assert f"listens on Unix socket {path}" in texts(findings, "sockets")
    assert texts(findings, "runtime").startswith("Python: the executable is called python")
    assert "thread: " in texts(findings, "links")
    assert texts(findings, "goroutines") == ""


def test_tls_libraries_are_named(start: Any) -> None:
    running = start(sys.executable, "-c", "import ssl, time; print(flush=True); time.sleep(60)")
    running.stdout.readline()
    findings = explain(running.pid, Describer(MANIFESTS))
    assert "OpenSSL in /" in texts(findings, "tls")
    assert "what it encrypts is seen" in texts(findings, "tls")


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_what_is_asked_about_old_connections(start: Any) -> None:
    running = start(shutil.which("node"), "-e", "console.log(); setTimeout(() => {}, 60000)")
    running.stdout.readline()
    if "OpenSSL in /" not in (said := texts(findings := explain(running.pid, Describer(MANIFESTS)), "tls")):
        pytest.skip(f"this node is not one of Node's own builds: {said}")
    assert "nghttp2 is asked about HTTP/2 connections older than the agent" in texts(findings, "tasks")


def test_a_library_of_http2_that_cannot_be_asked_is_named(proc: Any) -> None:
    """Debian's nodejs."""
    library = "/usr/lib/x86_64-linux-gnu/libnghttp2.so.14.28.0"
    proc.add(7, "/usr/bin/node", maps=f"7f0000000000-7f0000001000 r-xp 00000000 fd:00 12 {library}\n")
    findings = explain(7, Describer(MANIFESTS, procfs=proc.procfs), proc.procfs)
    assert findings is not None
    (finding,) = [finding for finding in findings if finding.topic == "tasks"]
    assert finding.state is State.NO
    assert finding.text.startswith(f"nghttp2 in {library} cannot be asked")


@pytest.mark.skipif(not GRPC_CORE.exists(), reason="needs libgrpc29")
def test_only_functions_with_a_probe_are_named(proc: Any) -> None:
    folder = proc.add(7, maps=f"7f0000000000-7f0000001000 r-xp 00000000 fd:00 12 {GRPC_CORE}\n")
    (folder / "map_files").mkdir()
    (folder / "map_files" / "7f0000000000-7f0000001000").symlink_to(GRPC_CORE)
    said = texts(explain(7, Describer(MANIFESTS, procfs=proc.procfs), proc.procfs), "tasks")
    assert "grpc-core is asked about HTTP/2 connections older than the agent" in said
    assert "grpc_chttp2_begin_write" in said
    assert "grpc_chttp2_end_write" not in said


def test_tls_that_cannot_be_seen_is_named(proc: Any) -> None:
    line = (
        "7f0000000000-7f0000001000 r-xp 00000000 fd:00 12 /venv/grpc/_cython/cygrpc.cpython-311-x86_64.so\n"
    )
    proc.add(7, maps=line)
    findings = explain(7, Describer(MANIFESTS, procfs=proc.procfs), proc.procfs)
    assert "grpcio, which has BoringSSL inside without symbols" in texts(findings, "tls")
    assert "only counted" in texts(findings, "tls")


def test_tls_inside_a_program_without_symbols_is_recognised(proc: Any, tmp_path: Path) -> None:
    """By what such a library must have inside, whatever the file is called."""
    program = tmp_path / "edge"
    program.write_bytes(bytes(1 << 20) + b"c hs traffic\0OpenSSL 1.1.1 (compatible; BoringSSL)")
    folder = proc.add(7, maps="7f0000000000-7f0000001000 r-xp 00000000 fd:00 12 /usr/bin/edge\n")
    (folder / "map_files").mkdir()
    (folder / "map_files" / "7f0000000000-7f0000001000").symlink_to(program)
    findings = explain(7, Describer(MANIFESTS, procfs=proc.procfs), proc.procfs)
    assert texts(findings, "tls") == (
        "probably BoringSSL, without symbols, is mapped (/usr/bin/edge) and no probe fits it: "
        "what it encrypts is only counted"
    )


def test_a_runtime_with_tls_of_its_own(proc: Any) -> None:
    proc.add(7, "/usr/bin/java")
    findings = explain(7, Describer(MANIFESTS, procfs=proc.procfs), proc.procfs)
    assert (
        texts(findings, "tls")
        == "JSSE is part of the program and no probe fits it: what it encrypts is only counted"
    )


def test_a_program_without_tls(start: Any) -> None:
    running = start("sh", "-c", "echo; read x", stdin=-1)
    running.stdout.readline()
    findings = explain(running.pid, Describer(MANIFESTS))
    assert texts(findings, "tls") == "no TLS library was found in it"
    running.stdin.close()


def test_goroutines_that_cannot_be_told_apart(proc: Any, tmp_path: Path) -> None:
    """A stripped Go program of a release nobody has measured; its build information is all there is."""
    clang = shutil.which("clang")
    if clang is None:
        pytest.skip("there is no clang here")
    source = tmp_path / "future.c"
    source.write_text(
        "struct { char magic[14], size, flags, rest[16], length, version[8], none; } i\n"
        '__attribute__((section(".go.buildinfo"), aligned(16), used)) =\n'
        '{ "\\xff Go buildinf:", 8, 2, {0}, 8, "go1.99.1", 0 };\n'
        "int main(void) { return 0; }\n"
    )
    subprocess.run([clang, "-s", "-o", tmp_path / "future", source], check=True)
    proc.add(7, f"{tmp_path}/future")
    findings = explain(7, Describer(MANIFESTS, procfs=proc.procfs), proc.procfs)
    assert findings is not None
    assert Finding("goroutines", State.NO, texts(findings, "goroutines")) in findings
    assert "go1.99.1 is not known" in texts(findings, "goroutines")
    assert "no link is made by them" in texts(findings, "goroutines")


def test_contexts_of_python(proc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python of a known version, of another one, and on a machine where nothing is read; and no Python."""

    def contexts(pid: int, machine: str) -> list[Finding]:
        monkeypatch.setattr("platform.machine", lambda: machine)
        findings = explain(pid, Describer(MANIFESTS, procfs=proc.procfs), proc.procfs)
        assert findings is not None
        return [finding for finding in findings if finding.topic == "contexts"]

    for pid, program in ((7, "python3.11"), (8, "python3.99"), (9, "nginx")):
        proc.add(pid, f"/usr/bin/{program}")
    (known,) = contexts(7, "x86_64")
    assert (known.state, "offset 224 of its PyThreadState" in known.text) == (State.YES, True)
    (unknown,) = contexts(8, "x86_64")
    assert (unknown.state, "where python3.99 keeps" in unknown.text) == (State.NO, True)
    (elsewhere,) = contexts(7, "aarch64")
    assert (elsewhere.state, "on x86_64 alone" in elsewhere.text) == (State.NO, True)
    assert contexts(9, "x86_64") == []


def test_io_uring_is_pointed_out(proc: Any) -> None:
    folder = proc.add(7)
    (folder / "fd" / "5").symlink_to("anon_inode:[io_uring]")
    assert "io_uring" in texts(explain(7, Describer(MANIFESTS, procfs=proc.procfs), proc.procfs), "sockets")


def test_a_process_that_is_gone(proc: Any) -> None:
    assert explain(7, Describer(MANIFESTS, procfs=proc.procfs), proc.procfs) is None
