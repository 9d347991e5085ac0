"""OpenSSL of several versions, loaded by dlopen while the program runs."""

from __future__ import annotations

import http.client
import shutil
import ssl
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from harness import SERVICES, Traced, free_ports, listening, log_entries, shell, wait_for
from tls import LIBRARIES, Tls, only_copies, reads

KEPT = Path(__file__).resolve().parents[2] / "build" / "openssl"
WHEELS = {"1.1.1": "psycopg2-binary==2.9.5", "3.5": "psycopg2-binary==2.9.11"}
"""Packages that carry an OpenSSL of their own."""


def libraries(version: str) -> list[Path]:
    """libcrypto and libssl of a version, fetched once."""
    if version == "3.0":
        return [LIBRARIES / "libcrypto.so.3", LIBRARIES / "libssl.so.3"]
    folder = KEPT / version
    if not folder.exists():
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run(
            [*fetch, WHEELS[version], "--dest", str(folder)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"{WHEELS[version]}, which carries OpenSSL {version}, cannot be fetched")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if "/libssl" in name or "/libcrypto" in name:
                    (folder / Path(name).name).write_bytes(archive.read(name))
    return [next(folder.glob("libcrypto*")), next(folder.glob("libssl*"))]


def ask(tls: Tls, port: int, *paths: str) -> None:
    """One request after the other on one connection."""
    context = ssl.create_default_context(cafile=str(tls.folder / "cert.pem"))
    connection = http.client.HTTPSConnection("localhost", port, context=context)
    for path in paths:
        connection.request("GET", path)
        assert connection.getresponse().read() == b"hello"
    connection.close()


@pytest.mark.parametrize("version", ["1.1.1", "3.0", "3.5"])
def test_a_version_that_is_loaded_late(tmp_path: Path, version: str) -> None:
    """What the first connection says may be missed, for until then there is no library; all after it is seen."""
    tls = Tls(tmp_path / "tls")
    libssl = tls.copy(*libraries(version))
    (port,) = free_ports(1)
    environment = f"env LD_LIBRARY_PATH={tls.libraries}"
    service = f"{SERVICES}/tls_dlopen.py {port} {tls.folder} {tmp_path}/log {libssl}"
    command = shell(f"{environment} {sys.executable} {service}")

    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "the server")
        ask(tls, port, "/first")
        reads(agent, libssl.name)
        for connection in range(4):
            ask(tls, port, *(f"/c/{connection}/r/{number}" for number in range(3)))
        result = agent.finish()
    result.check_ledger()
    truth = [(entry["path"], entry["peer"]) for entry in log_entries(tmp_path / "log")]
    assert len(truth) == 13
    seen = [(s.path, s.attributes["client.port"]) for s in result.server()]
    assert sorted(set(seen) - {truth[0]}) == sorted(truth[1:])
    assert len(seen) == len(set(seen))


def test_another_library_is_loaded_long_after(tmp_path: Path) -> None:
    """After the half minute in which a new program is looked at again and again, when it speaks TLS already."""
    tls = Tls(tmp_path / "tls")
    first = tls.copy(*libraries("3.0"))
    late = tls.folder / "late" / first.name
    late.parent.mkdir()
    shutil.copy(first, late)
    (port,) = free_ports(1)
    service = f"{SERVICES}/tls_dlopen.py {port} {tls.folder} {tmp_path}/log {first} {late}"
    command = shell(f"env LD_LIBRARY_PATH={tls.libraries} {sys.executable} {service}")
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "the server")
        ask(tls, port, "/first")
        reads(agent, f"libraries/{first.name}")
        time.sleep(36)
        Path(f"{late}-go").touch()
        ask(tls, port, "/loads/it")
        reads(agent, f"late/{late.name}")
        ask(tls, port, "/1", "/2")
        result = agent.finish()
    result.check_ledger()
    truth = [(entry["path"], entry["peer"]) for entry in log_entries(tmp_path / "log")]
    seen = [(s.path, s.attributes["client.port"]) for s in result.server()]
    assert set(truth[2:]) <= set(seen) <= set(truth)
