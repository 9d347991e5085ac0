"""TLS for end-to-end tests: certificates, and libraries that only the test's own programs map.

A probe in a library's file is hit by every process that maps the file. So the programs of these tests get copies of
the libraries, and the agent may probe nothing but these copies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from harness import SERVICES, Result, Traced, listening, shell, wait_for

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
LOADING_S = 180
"""How long it may take until the kernel has verified the programs of a library and set their probes, in a guest."""

WAIT = "until [ -e GO ]; do sleep 0.05; done;"
"""Before a client of `run_client` that does not wait by itself."""


class Tls:
    """A folder with cert.pem and key.pem for localhost, and copies of libraries."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.libraries = folder / "libraries"
        self.libraries.mkdir(parents=True)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"), "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip

    def copy(self, *files: str | Path) -> Path:
        """Copy files into the folder of libraries, under their own names; returns the copy of the last."""
        for file in files:
            shutil.copy(file, self.libraries)
        return self.libraries / Path(files[-1]).name

    def openssl(self) -> str:
        """Copy OpenSSL; what is put before a command to make it use the copy."""
        self.copy(LIBRARIES / "libssl.so.3", LIBRARIES / "libcrypto.so.3")
        return f"env LD_LIBRARY_PATH={self.libraries}"


def build_go(program: Path, *options: str) -> None:
    """Build the Go program that stands under the same name among the services."""
    subprocess.run(
        [shutil.which("go") or "/usr/local/go/bin/go", "build", *options, "-o", str(program), "main.go"],
        cwd=SERVICES / program.name,
        env={**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off"},
        check=True,
    )


def reads(agent: Traced, *names: str) -> None:
    """Wait until the agent reads TLS in the libraries of these names."""
    for name in names:
        found = f"/{name} ("
        outcomes = (found, "not probed", "not seen")
        wait_for(
            lambda outcomes=outcomes: any(word in agent.said() for word in outcomes),
            f"the probes of {name}",
            LOADING_S,
        )
        assert found in agent.said(), agent.said()


def run_client(tmp_path: Path, services: list[str], client: str, ports: list[int], *libraries: str) -> Result:
    """Trace services on `ports`, and a client that waits for the file which `GO` in it stands for."""
    go, done = tmp_path / "go", tmp_path / "done"
    command = shell(*services, f"{{ {client.replace('GO', str(go))} && touch {done}; }}")
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: all(map(listening, ports)), "the services")
        reads(agent, "libssl.so.3", *libraries)
        go.touch()
        wait_for(done.exists, "the client")
        result = agent.finish()
    result.check_ledger()
    return result


def check_joined(result: Result, served: list[dict[str, Any]]) -> None:
    """Each exchange of the server's log has a span at both of its ends, joined, on the connection of the log."""
    result.check_ledger()
    truth = sorted((entry["path"], entry["peer"]) for entry in served)
    assert sorted((s.path, s.attributes["client.port"]) for s in result.server()) == truth
    assert sorted(s.path for s in result.client()) == sorted(entry["path"] for entry in served)
    for span in result.server():
        parent = result.parent_of(span)
        assert parent is not None, span
        assert (span.link, parent.path, parent.status) == ("wire", span.path, span.status), span


def only_copies(folder: Path) -> tuple[str, ...]:
    """Options of an agent that may probe nothing but what stands somewhere in `folder`."""
    return ("--tls", f"{folder}/*")
