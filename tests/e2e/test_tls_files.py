"""A library is the file that is mapped, whatever stands at its path: replaced, deleted, or in another root."""

from __future__ import annotations

import http.client
import shutil
import ssl
import sys
from pathlib import Path

import pytest
from harness import SERVICES, Result, Traced, free_ports, listening, log_entries, running, shell, wait_for
from tls import LOADING_S, Tls, build_go, check_joined, only_copies, reads


def server(tmp_path: Path, tls: Tls, port: int, log: str) -> str:
    run = f"env LD_LIBRARY_PATH={tls.libraries} {sys.executable} {SERVICES}/tls_server.py"
    return f"{run} {port} {tls.folder} {tmp_path}/{log} threads"


def ask(tls: Tls, port: int, *paths: str) -> None:
    connection = http.client.HTTPSConnection(
        "localhost", port, context=ssl.create_default_context(cafile=str(tls.folder / "cert.pem"))
    )
    for path in paths:
        connection.request("GET", path)
        assert connection.getresponse().read()
    connection.close()


def check(result: Result, *logs: Path) -> None:
    """Every request in these logs has a server span, and no other."""
    result.check_ledger()
    truth = sorted((entry["path"], entry["peer"]) for log in logs for entry in log_entries(log))
    assert truth
    assert sorted((s.path, s.attributes["client.port"]) for s in result.server()) == truth


def test_a_library_that_is_replaced(tmp_path: Path) -> None:
    """An upgrade puts a new file at the old path: programs go on with the old one, or begin with the new one."""
    tls = Tls(tmp_path / "tls")
    tls.openssl()
    old, new = free_ports(2)
    go = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    command = shell(
        server(tmp_path, tls, old, "old.log"), f"{{ {go}; exec {server(tmp_path, tls, new, 'new.log')}; }}"
    )
    libssl = tls.libraries / "libssl.so.3"
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(old), "the first server")
        reads(agent, "libssl.so.3")
        ask(tls, old, "/old/1", "/old/2")
        shutil.copy(libssl, tls.folder / "upgrade")
        (tls.folder / "upgrade").replace(libssl)
        (tmp_path / "go").touch()
        wait_for(lambda: listening(new), "the second server")
        wait_for(lambda: agent.said().count("reads TLS in") == 2, "the probes of the new file")
        ask(tls, new, "/new/1", "/new/2")
        ask(tls, old, "/old/3")
        result = agent.finish()
    check(result, tmp_path / "old.log", tmp_path / "new.log")


def test_a_library_that_is_deleted(tmp_path: Path) -> None:
    tls = Tls(tmp_path / "tls")
    tls.openssl()
    (port,) = free_ports(1)
    with running(shell(server(tmp_path, tls, port, "log")), port) as service:
        for file in tls.libraries.iterdir():
            file.unlink()
        options = (*only_copies(tmp_path), "--pid", str(service.pid))
        with Traced(tmp_path / "agent", [], options) as agent:
            reads(agent, "libssl.so.3")
            ask(tls, port, "/1", "/2")
            result = agent.finish()
    check(result, tmp_path / "log")


def test_a_program_that_is_written_over(tmp_path: Path) -> None:
    """By cp, between two runs: the path and the inode are the same, the functions are elsewhere."""
    tls = Tls(tmp_path / "tls")
    tls.openssl()
    (port,) = free_ports(1)
    program = tls.libraries / "lazy_tls_go"
    build_go(program, "-gcflags=all=-N -l")
    other = program.read_bytes()
    build_go(program)
    run = "; ".join(
        f"until [ -e {tmp_path}/start-{n} ]; do sleep 0.05; done; "
        f"{program} {port} {tls.folder} 5 {tmp_path}/go-{n}; touch {tmp_path}/done-{n}"
        for n in (1, 2)
    )
    command = shell(server(tmp_path, tls, port, "log"), f"{{ {run}; }}")
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "the server")
        reads(agent, "libssl.so.3")
        for number in (1, 2):
            (tmp_path / f"start-{number}").touch()
            wait_for(
                lambda number=number: agent.said().count(f"{program.name} (") == number,
                "the probes",
                LOADING_S,
            )
            (tmp_path / f"go-{number}").touch()
            wait_for((tmp_path / f"done-{number}").exists, "the client")
            inode = program.stat().st_ino
            program.write_bytes(other)
            assert program.stat().st_ino == inode
        result = agent.finish()
    served = log_entries(tmp_path / "log")
    assert len(served) == 2 * 5 * 2
    check_joined(result, served)


def test_two_containers_of_one_image(tmp_path: Path) -> None:
    """Each has the library on an overlay file system of its own; it is one file, and is probed once."""
    tls = Tls(tmp_path / "tls")
    tls.openssl()
    ports = free_ports(2)
    commands = []
    for port in ports:
        inside = tmp_path / f"container-{port}"
        inside.mkdir()
        layers = f"lowerdir={tls.libraries},upperdir={inside}/upper,workdir={inside}/work"
        mount = (
            f"mount -t tmpfs none {inside} && mkdir {inside}/upper {inside}/work {inside}/root && "
            f"mount -t overlay -o {layers} none {inside}/root"
        )
        run = server(tmp_path, tls, port, f"log-{port}").replace(str(tls.libraries), f"{inside}/root")
        commands.append(f"unshare --mount sh -c '{mount} && exec {run}'")
    with Traced(tmp_path / "agent", shell(*commands), only_copies(tmp_path)) as agent:
        for port in ports:
            wait_for(lambda port=port: listening(port), "the servers")
        reads(agent, "libssl.so.3")
        for port in ports:
            ask(tls, port, "/1", "/2")
        result = agent.finish()
    check(result, *(tmp_path / f"log-{port}" for port in ports))
    assert result.said.count("reads TLS in") == 1


def test_a_library_in_another_root(tmp_path: Path) -> None:
    """As in a container: the file is in a mount that only the process sees, and at its path here is nothing."""
    tls = Tls(tmp_path / "tls")
    tls.openssl()
    inside = tls.folder / "inside"
    inside.mkdir()
    (port,) = free_ports(1)
    run = server(tmp_path, tls, port, "log").replace(str(tls.libraries), str(inside))
    mount = f"mount -t tmpfs none {inside} && cp {tls.libraries}/* {inside}"
    command = shell(f"unshare --mount sh -c '{mount} && exec {run}'")
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "the server")
        reads(agent, "libssl.so.3")
        assert not list(inside.iterdir())
        ask(tls, port, "/1", "/2")
        result = agent.finish()
    check(result, tmp_path / "log")


def test_processes_that_exit_while_probes_are_set(tmp_path: Path) -> None:
    """Each is gone before, while or after its library is looked at; the one that stays is seen."""
    tls = Tls(tmp_path / "tls")
    tls.openssl()
    (port,) = free_ports(1)
    short = f"env LD_LIBRARY_PATH={tls.libraries} {sys.executable} -S -c 'import ssl, os; os._exit(0)'"
    command = shell(
        f"{{ for i in $(seq 20); do {short} & {short}; done; touch {tmp_path}/over; "
        f"exec {server(tmp_path, tls, port, 'log')}; }}"
    )
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for((tmp_path / "over").exists, "the short processes")
        wait_for(lambda: listening(port), "the server")
        reads(agent, "libssl.so.3")
        ask(tls, port, "/1", "/2")
        result = agent.finish()
    check(result, tmp_path / "log")
    assert "not seen" not in result.said


@pytest.mark.skipif(
    int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) > 2,
    reason="needs kernel.perf_event_paranoid of 2 or less: above it CAP_PERFMON is not enough",
)
def test_with_the_capabilities_of_the_systemd_unit(tmp_path: Path) -> None:
    unit = (Path(__file__).parents[2] / "deploy" / "systemd" / "autotrace.service").read_text()
    line = next(line for line in unit.splitlines() if line.startswith("CapabilityBoundingSet="))
    kept = ",".join(line.partition("=")[2].lower().replace("cap_", "+").split())
    before = ("setpriv", "--no-new-privs", f"--bounding-set=-all,{kept}", "--inh-caps=-all")
    tls = Tls(tmp_path / "tls")
    tls.openssl()
    (port,) = free_ports(1)
    with running(shell(server(tmp_path, tls, port, "log")), port) as service:
        options = (*only_copies(tmp_path), "--pid", str(service.pid))
        with Traced(tmp_path / "agent", [], options, before) as agent:
            reads(agent, "libssl.so.3")
            ask(tls, port, "/1", "/2")
            result = agent.finish()
    check(result, tmp_path / "log")
