"""Calls made for a request where either comes by gRPC: no false parent, and how many have theirs."""

from __future__ import annotations

import platform
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
from harness import (
    SERVICES,
    Result,
    SpanRecord,
    Traced,
    drive,
    free_ports,
    listening,
    log_entries,
    shell,
    wait_for,
)
from tls import LOADING_S

FRONT = f"{sys.executable} {SERVICES}/front_grpc.py"
REQUESTS = {1: 60, 10: 200, 50: 500}
needs_tasks = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="Python's tasks are told on x86-64 only"
)
needs_node = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")


def probed_front(tmp_path: Path) -> str:
    """The front, run by an interpreter that nobody else maps: a probe in a shared file is hit by every process."""
    copies = tmp_path / "python"
    copies.mkdir()
    copy = shutil.copy(Path(sys.executable).resolve(), copies)
    library = Path(sysconfig.get_config_var("LIBDIR")) / str(sysconfig.get_config_var("LDLIBRARY"))
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and library.exists():
        soname = f"libpython{sysconfig.get_python_version()}.so.1.0"
        shutil.copy(library, copies / soname)
    paths = sysconfig.get_path("platlib")
    return (
        f"env LD_LIBRARY_PATH={copies} PYTHONHOME={sys.base_prefix} PYTHONPATH={paths}"
        f" {copy} {SERVICES}/front_grpc.py"
    )


def run(
    tmp_path: Path, front: str, how: str, concurrency: int, threads: int = 64, probed: bool = False
) -> tuple[list[SpanRecord], list[SpanRecord]]:
    """Drive a front (services/front_grpc.py): its calls that have a parent, and those that have none.

    The services' own logs vouch for every call. A false parent fails the test. `probed`: it is `probed_front`.
    """
    options = ("--runtime-probes", f"{tmp_path}/python/*") if probed else ()
    port, grpc_port, http_port = free_ports(3)
    count, log, done = REQUESTS[concurrency], tmp_path / "front.log", tmp_path / "done"
    go = tmp_path / "go"
    client = f"{FRONT} client {port} {tmp_path}/client.log {count} {concurrency}"
    command = shell(
        f"{FRONT} back {grpc_port} {tmp_path}/back.log",
        f"{sys.executable} {SERVICES}/backend.py {http_port} {tmp_path}/http.log 4",
        f"(until [ -e {go} ]; do sleep 0.1; done; {front} {how} {port} {log} {grpc_port} {http_port} {threads})",
        f"(until [ -e {go}2 ]; do sleep 0.1; done; {client}; touch {done}; exec sleep 100)",
    )
    with Traced(tmp_path / "agent", command, options) as agent:
        wait_for(lambda: listening(grpc_port) and listening(http_port), "the called services")
        go.touch()
        wait_for(lambda: listening(port), "the front")
        if probed:
            wait_for(
                lambda: "(CPython's contexts)" in agent.said(), "the probes of the interpreter", LOADING_S
            )
        if how.startswith("http"):
            assert set(drive(port, [f"/serve-{i}" for i in range(count)], concurrency)) == {200}
        else:
            Path(f"{go}2").touch()
            wait_for(done.exists, "the client", 100)
        result = agent.finish()
    result.check_ledger()
    assert sorted(int(entry["number"]) for entry in log_entries(log)) == list(range(count))
    return sort_out(result, tmp_path)


def name(span: SpanRecord) -> str:
    """What was called: its last part is `WHAT-NUMBER`."""
    return str(span.attributes.get("rpc.method") or span.path).rpartition("/")[2]


def sort_out(result: Result, logs: Path) -> tuple[list[SpanRecord], list[SpanRecord]]:
    by_id = {span.span_id: span for span in result.spans}
    calls = [span for span in result.client() if name(span).split("-")[0] != "serve"]
    received = [entry["method"].rpartition("/")[2] for entry in log_entries(logs / "back.log")]
    received += [entry["path"][1:] for entry in log_entries(logs / "http.log")]
    assert sorted(map(name, calls)) == sorted(received)
    found = [span for span in calls if span.parent_id]
    for span in found:
        above = by_id[span.parent_id]
        assert name(above) == f"serve-{name(span).split('-')[1]}", (span, above)
        assert above.kind == "server"
        assert (above.pid, above.trace_id) == (span.pid, span.trace_id), (span, above)
    for span in result.server():
        if name(span).split("-")[0] != "serve":
            assert name(by_id[span.parent_id]) == name(span), span
    return found, [span for span in calls if not span.parent_id]


@pytest.mark.parametrize("concurrency", [1, 10, 50])
def test_threads_that_serve_http_and_call_by_grpc(tmp_path: Path, concurrency: int) -> None:
    found, lost = run(tmp_path, FRONT, "http", concurrency)
    assert {span.link for span in found} == {"thread"}
    assert all("rpc.method" in span.attributes for span in lost)
    assert len(found) > 2 * len(lost), f"{len(found)} have their parents, {len(lost)} have none"


@needs_tasks
@pytest.mark.parametrize(
    ("concurrency", "threads", "probed"),
    [(1, 64, False), (10, 64, False), (50, 64, False), (50, 5, False), (1, 64, True), (50, 64, True)],
)
def test_threads_of_a_grpc_server(tmp_path: Path, concurrency: int, threads: int, probed: bool) -> None:
    front = probed_front(tmp_path) if probed else FRONT
    found, lost = run(tmp_path, front, "pool", concurrency, threads, probed)
    assert {span.link for span in found} == {"answer"}
    if concurrency == 1:
        assert len(found) > 5 * len(lost), f"{len(found)} have their parents, {len(lost)} have none"


@needs_tasks
@pytest.mark.parametrize("concurrency", [1, 10, 50])
def test_tasks_of_a_grpc_server_on_asyncio(tmp_path: Path, concurrency: int) -> None:
    """Without probes a task is not told from one that it started: with one request open there is a parent."""
    found, lost = run(tmp_path, FRONT, "aio", concurrency)
    assert {span.link for span in found} <= {"answer"}
    if concurrency == 1:
        assert len(found) > 2 * len(lost), f"{len(found)} have their parents, {len(lost)} have none"


@needs_tasks
@pytest.mark.parametrize("concurrency", [1, 10, 50])
def test_tasks_of_a_grpc_server_whose_interpreter_is_probed(tmp_path: Path, concurrency: int) -> None:
    found, lost = run(tmp_path, probed_front(tmp_path), "aio", concurrency, probed=True)
    assert {span.link for span in found} == {"answer"}
    assert all("descends" in span.attributes["autotrace.link.evidence"] for span in found)
    assert len(found) > len(lost), f"{len(found)} have their parents, {len(lost)} have none"


@needs_tasks
@pytest.mark.parametrize("concurrency", [10, 50])
def test_tasks_that_leave_their_calls_to_others(tmp_path: Path, concurrency: int) -> None:
    found, lost = run(tmp_path, probed_front(tmp_path), "aio-tasks", concurrency, probed=True)
    by_way = [0] * 4  # as in AioCalls.all_in_tasks
    for span in found:
        number = int(name(span).split("-")[1])
        by_way[number % 4] += 1
        # In a context that is no copy of the current one.
        assert number % 4 != 1 or name(span).startswith("first"), span
    assert min(by_way) > REQUESTS[concurrency] // 16, (by_way, len(lost))


@pytest.mark.parametrize("concurrency", [1, 10, 50])
def test_tasks_that_serve_http_and_call_by_grpc(tmp_path: Path, concurrency: int) -> None:
    found, lost = run(tmp_path, FRONT, "http-aio", concurrency)
    assert {span.link for span in found} <= {"thread"}
    if concurrency == 1:
        assert len(found) > 2 * len(lost), f"{len(found)} have their parents, {len(lost)} have none"


@needs_node
@pytest.mark.parametrize("concurrency", [1, 10, 50])
@pytest.mark.parametrize("how", ["http", "grpc"])
def test_node(tmp_path: Path, how: str, concurrency: int) -> None:
    _, lost = run(tmp_path, f"node {SERVICES}/front_node_grpc.js", how, concurrency)
    if concurrency == 1:
        # The first: its connection was made before there was a request.
        assert [name(span) for span in lost] == ["first-0"]
