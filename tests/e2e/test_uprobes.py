"""Probes in user space programs, by either of the kernel's ways to set them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import wait_for
from tls import LIBRARIES, Tls

from autotrace.discovery.libraries import LibraryFinder
from autotrace.discovery.procfs import Procfs
from autotrace.errors import AutotraceError
from autotrace.kernel import uprobes
from autotrace.kernel.source import Source, attach, spec
from autotrace.model import Probe
from autotrace.probes import libraries

SCRIPT = """
import socket, ssl, sys, threading
server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
server.load_cert_chain(sys.argv[1] + "/cert.pem", sys.argv[1] + "/key.pem")
client = ssl.create_default_context(cafile=sys.argv[1] + "/cert.pem")
listener = socket.create_server(("127.0.0.1", 0))
def serve():
    with server.wrap_socket(listener.accept()[0], server_side=True) as connection:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
while True:
    print("ready", flush=True)
    input()
    thread = threading.Thread(target=serve)
    thread.start()
    with socket.create_connection(listener.getsockname()) as plain:
        with client.wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(b"GET /probed HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
            connection.recv(1000)
    thread.join()
"""


def seen(source: Source, process: subprocess.Popen[str]) -> int:
    """How many records say what a request says: at most its two ends'."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    return sum(b"GET /probed" in record for record in source.take())


@pytest.mark.parametrize("way", ["multi", "perf"])
def test_probes_are_set_and_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "perf":
        monkeypatch.setattr(uprobes, "_link", refuse)
        monkeypatch.setattr("autotrace.kernel.object.UPROBE_MULTI", 0)
    tls = Tls(tmp_path / "tls")
    tls.copy(LIBRARIES / "libssl.so.3", LIBRARIES / "libcrypto.so.3")
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tls.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LD_LIBRARY_PATH": str(tls.libraries)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        finder = LibraryFinder(libraries.load(), Procfs(), dict.fromkeys(libraries.Kind, f"{tmp_path}/*"))
        (use,) = finder.find(process.pid)
        source = attach(os.environ.get("AUTOTRACE_HOOKS", "auto"), spec)
        try:
            source.watch(process.pid)
            assert seen(source, process) == 0
            probes = source.probe_library("openssl", use.opened, list(use.probes))
            assert seen(source, process) == 2
            assert not probes.is_written()
            # Who would write to the file has to wait.
            with subprocess.Popen(["sh", "-c", f": >>{use.path}"]) as writer:
                wait_for(probes.is_written, "the writer")
                assert writer.poll() is None
                probes.close()
                assert writer.wait(60) == 0
            probes.close()
            assert seen(source, process) == 0
            with pytest.raises(AutotraceError, match="could not be set in"):
                source.probe_library(
                    "openssl", use.opened, [*use.probes, Probe("ssl_read_enters", 1 << 40, False)]
                )
            wait_for(lambda: seen(source, process) == 0, "the probes that were set before to go")
        finally:
            source.close()
            process.kill()


def refuse(*_arguments: object) -> int:
    raise OSError(errno.EINVAL, "an older kernel")
