"""Address families and network namespaces: both ends of a connection are the same exchange, and no other's."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conversation import Conversation, check, exchanges, hold
from harness import SERVICES, Traced, drive, free_ports, listening, log_entries, nginx_config, shell, wait_for


@pytest.mark.parametrize(
    ("family", "address"),
    [
        ("inet", ""),
        ("inet6", ""),
        ("mapped", ""),
        pytest.param("unix", "socket", marks=pytest.mark.core),
        ("abstract", "autotrace-test"),
    ],
)
def test_both_ends_are_joined(tmp_path: Path, family: str, address: str) -> None:
    options = {"family": family}
    if address:
        options["address"] = str(tmp_path / address) if family == "unix" else f"{address}-{os.getpid()}"
    conversation = Conversation("/x", rounds=3, options=options)
    result = hold(tmp_path, [conversation])
    check(result, conversation)
    server, client = exchanges(result, "/x")
    transport = "unix" if address else "tcp"
    assert {span.attributes["network.transport"] for span in result.spans} == {transport}
    peers = {span.attributes.get("network.peer.address") for span in client}
    expected = {"inet": "127.0.0.1", "mapped": "127.0.0.1", "inet6": "::1"}
    assert peers == {expected.get(family) or options["address"].join(["@" * (family == "abstract"), ""])}
    if transport == "tcp":
        assert {span.attributes["network.peer.address"] for span in server} == peers


@pytest.mark.parametrize("upstream", ["new", "kept"])
def test_nginx_with_unix_sockets_on_both_sides(tmp_path: Path, upstream: str) -> None:
    """A client -> Unix socket -> nginx -> Unix socket -> nginx, each parent right."""
    (front,) = free_ports(1)
    keep = "keepalive 8;" if upstream == "kept" else ""
    headers = 'proxy_http_version 1.1; proxy_set_header Connection "";' if upstream == "kept" else ""
    middle, back = tmp_path / "middle.sock", tmp_path / "back.sock"
    configs = {
        "front": nginx_config(
            tmp_path / "front",
            front,
            f"location / {{ proxy_pass http://middle; {headers} }}",
            f"upstream middle {{ server unix:{middle}; {keep} }}",
        ),
        "middle": nginx_config(
            tmp_path / "middle",
            front,
            f"location / {{ proxy_pass http://back; {headers} }}",
            f"upstream back {{ server unix:{back}; {keep} }}",
        ),
        "back": nginx_config(tmp_path / "back", front, "location / { return 200 'from the back'; }"),
    }
    for name, listen in (("middle", middle), ("back", back)):
        text = configs[name].read_text().replace(f"127.0.0.1:{front} backlog=511", f"unix:{listen}")
        configs[name].write_text(text)
    with Traced(tmp_path / "agent", shell(*(f"nginx -c {config}" for config in configs.values()))) as agent:
        wait_for(lambda: listening(front) and middle.exists() and back.exists(), "three nginx")
        paths = [f"/n/{i}" for i in range(120)]
        assert set(drive(front, paths, 8)) == {200}
        result = agent.finish()
    result.check_ledger()
    by_id = {span.span_id: span for span in result.spans}
    seen = [span for span in result.spans if span.path in set(paths)]
    for name in configs:
        served = [entry["path"] for entry in log_entries(tmp_path / name / "access.log")]
        assert sorted(path for path in served if path in set(paths)) == sorted(paths)
    assert len(seen) == 5 * len(paths)
    assert not [s for s in seen if s.parent_id and by_id[s.parent_id].path != s.path], "false parents"
    assert len([s for s in seen if s.parent_id]) >= 0.99 * 4 * len(paths)
    unix_servers = [s for s in seen if s.kind == "server" and s.attributes["network.transport"] == "unix"]
    assert len(unix_servers) == 2 * len(paths)
    assert {s.link for s in unix_servers} == {"wire"}


@contextmanager
def _namespaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them: 10.213.7.1 and 10.213.7.2."""
    names = (f"at-a-{os.getpid()}", f"at-b-{os.getpid()}")
    commands = [f"netns add {name}" for name in names]
    commands.append(f"link add eth0 netns {names[0]} type veth peer name eth0 netns {names[1]}")
    for i, name in enumerate(names):
        commands += [
            f"-n {name} addr add 10.213.7.{i + 1}/24 dev eth0",
            f"-n {name} link set eth0 up",
            f"-n {name} link set lo up",
        ]
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def test_equal_loopback_addresses_in_two_namespaces(tmp_path: Path) -> None:
    """The same ports on 127.0.0.1 twice, the same source ports too: each client meets its own server."""
    (port,) = free_ports(1)
    with _namespaces() as names:
        client = f"{sys.executable} {SERVICES}/calls.py"
        commands = []
        for name in names:
            log = tmp_path / f"{name}.log"
            wait = f"{client} wait 127.0.0.1 {port}"
            calls = f"{client} same-source-port 127.0.0.1 {port} /{name}/ 40"
            inside = f"{sys.executable} {SERVICES}/backend.py {port} {log} & {wait}; {calls}; kill %1"
            commands.append(f"ip netns exec {name} bash -mc {inside!r}")
        with Traced(tmp_path / "agent", ["bash", "-c", " & ".join(commands) + " & wait"]) as agent:
            agent.process.wait(60)
            result = agent.finish(0)
    result.check_ledger()
    by_id = {span.span_id: span for span in result.spans}
    for name in names:
        served = log_entries(tmp_path / f"{name}.log")
        assert len(served) == 40
        servers = [s for s in result.server("backend") if s.path.startswith(f"/{name}/")]
        assert len(servers) == 40
        assert {s.link for s in servers} == {"wire"}
        assert [s.path for s in servers] == [by_id[s.parent_id].path for s in servers]


def test_client_and_server_in_different_namespaces(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with _namespaces() as (here, there):
        log = tmp_path / "backend.log"
        client = f"{sys.executable} {SERVICES}/calls.py"
        serve = f"ip netns exec {there} {sys.executable} {SERVICES}/backend.py {port} {log} 0 10.213.7.2"
        calls = f"{client} wait 10.213.7.2 {port}; {client} kept 10.213.7.2 {port} /far/ 25"
        script = f"{serve} & ip netns exec {here} bash -c {calls!r}; kill %1; wait"
        with Traced(tmp_path / "agent", ["bash", "-mc", script]) as agent:
            agent.process.wait(60)
            result = agent.finish(0)
    result.check_ledger()
    by_id = {span.span_id: span for span in result.spans}
    servers = [s for s in result.server("backend") if s.path.startswith("/far/")]
    assert len(servers) == len(log_entries(log)) == 25
    assert {s.link for s in servers} == {"wire"}
    assert [s.path for s in servers] == [by_id[s.parent_id].path for s in servers]


def test_an_ipv4_client_of_a_dual_stack_server_that_is_not_ours(tmp_path: Path) -> None:
    """Only the client is watched: its span has the IPv4 address, and no one else's parent."""
    (port,) = free_ports(1)
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        command = [sys.executable, str(SERVICES / "calls.py"), "new", "127.0.0.1", str(port), "/v4/", "1"]
        with Traced(tmp_path / "agent", command) as agent:
            connection, _ = server.accept()
            with connection:
                assert connection.recv(4096).startswith(b"GET /v4/0 ")
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                agent.process.wait(20)
            result = agent.finish(0)
    result.check_ledger()
    (span,) = result.spans
    assert (span.kind, span.path, span.status, span.link) == ("client", "/v4/0", 200, "none")
    assert span.attributes["network.peer.address"] == "127.0.0.1"
    assert span.status == http.client.OK
