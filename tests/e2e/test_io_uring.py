"""Bytes that io_uring moves: fentry and kprobe see them as those of system calls, tracepoints do not."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conversation import build
from harness import AUTOTRACE, Result, SpanRecord, Traced, free_ports, listening, log_entries, shell, wait_for
from kernel_state import loaded

REQUEST, RESPONSE, COUNT = 3_000, 50_000, 10
SERVICES = ("back", "front", "asker")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the program under a name for each part that it plays."""
    directory = tmp_path_factory.mktemp("uring")
    program = build("uring")
    for name in SERVICES:
        shutil.copy(program, directory / name)
    return directory


def abilities(program: Path) -> dict[str, Any]:
    probed = subprocess.run([program, "probe"], capture_output=True, text=True)
    if probed.returncode == 3:
        pytest.skip(f"io_uring may not be used here: {probed.stderr.strip()}")
    found: dict[str, Any] = json.loads(probed.stdout)
    return found


def serve(
    programs: Path, directory: Path, *options: str, connections: int = 8, unix: bool = False
) -> tuple[Result, set[str]]:
    """asker -> front -> back, all by io_uring alone, under an agent. Gives the paths, which all three logged."""
    ports = [str(port) for port in free_ports(2)]
    back, front = [str(directory / name) for name in ("back.sock", "front.sock")] if unix else ports
    said = " ".join(options)
    asking = f"name=x request={REQUEST} response={RESPONSE} connections={connections} count={COUNT} address={front}"
    go = directory / "go"
    commands = [
        f"{programs}/back serve address={back} log={directory}/server.log {said}",
        f"{programs}/front serve address={front} upstream={back} log={directory}/proxy.log {said}",
        f"(until test -e {go}; do sleep 0.05; done; "
        f"{programs}/asker ask log={directory}/client.log {asking} {said}; echo $? > {directory}/done)",
    ]
    with Traced(directory / "agent", shell(*commands)) as agent:
        wait_for(lambda: loaded(agent.process.pid), "the programs to be loaded", 300)
        for address in (back, front):
            wait_for(lambda at=address: Path(at).exists() if unix else listening(int(at)), address)
        go.touch()
        wait_for((directory / "done").exists, "the end of the conversations", 120)
        result = agent.finish(1)
    assert (directory / "done").read_text() == "0\n"
    logs = {who: [entry["path"] for entry in log_entries(directory / f"{who}.log")] for who in
            ("client", "proxy", "server")}  # fmt: skip
    paths = set(logs["client"])
    assert len(paths) == connections * COUNT
    assert sorted(logs["client"]) == sorted(logs["proxy"]) == sorted(logs["server"]) == sorted(paths)
    result.check_ledger()
    return result, paths


def check(result: Result, paths: set[str]) -> dict[str, list[SpanRecord]]:
    """Every exchange has its four spans with the right sizes; no parent is wrong. Gives the spans by part."""
    parts = {
        "asker": result.client("asker"),
        "front": result.server("front"),
        "passed on": result.client("front"),
        "back": result.server("back"),
    }
    for part, spans in parts.items():
        assert sorted(span.path for span in spans) == sorted(paths), (part, len(spans), result.said)
        for span in spans:
            assert (span.status, span.error) == (200, False), (span, result.said)
            assert span.attributes["http.request.body.size"] == REQUEST, span
            assert span.attributes["http.response.body.size"] == RESPONSE, span
    assert len(result.spans) == 4 * len(paths)
    assert not result.dropped, result.said
    by_id = {span.span_id: span for span in result.spans}
    wrong = [span for span in result.spans if span.parent_id and by_id[span.parent_id].path != span.path]
    assert not wrong, f"{len(wrong)} false parents, such as that of {wrong[0]}"
    assert {span.link for span in parts["front"] + parts["back"]} == {"wire"}
    return parts


def seen(result: Result) -> bool:
    """Whether io_uring is seen by the hooks in use; if not, nothing of it may have come to light."""
    if "attached by tracepoint" not in result.said:
        return True
    assert result.spans == []
    assert result.ledger == {"seen": 0, "emitted": 0, "dropped": 0, "in_flight": 0}
    return False


def test_send_and_receive(tmp_path: Path, programs: Path) -> None:
    abilities(programs / "back")
    result, paths = serve(programs, tmp_path, connections=1)
    if not seen(result):
        return
    parts = check(result, paths)
    assert {span.link for span in parts["passed on"]} == {"thread"}


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("by", ["recv", "read", "readv", "recvmsg", "zerocopy"])
def test_every_operation(tmp_path: Path, programs: Path, by: str, unix: bool) -> None:
    if by == "zerocopy" and not abilities(programs / "back")["zerocopy"]:
        pytest.skip("this kernel's io_uring has no zero-copy send (Linux 6.0)")
    if by == "zerocopy" and unix:
        pytest.skip("Unix sockets have no zero-copy send")
    result, paths = serve(programs, tmp_path, f"by={by}", unix=unix)
    if seen(result):
        check(result, paths)


@pytest.mark.parametrize("option", ["async=1", "sqpoll=1"])
@pytest.mark.parametrize("by", ["recv", "readv"])
def test_by_the_kernels_threads_of_the_process(tmp_path: Path, programs: Path, by: str, option: str) -> None:
    """One thread asks, others do it: which of them says nothing about what belongs together."""
    if not abilities(programs / "back")["own_threads"]:
        pytest.skip("io_uring's threads are not the process's own on this kernel (before Linux 5.12)")
    result, paths = serve(programs, tmp_path, f"by={by}", option)
    if seen(result):
        parts = check(result, paths)
        assert {span.link for span in parts["passed on"]} == {"none"}


def test_doctor_says_whether_it_is_seen() -> None:
    # It attaches every flavour: in a guest that takes its time.
    said = subprocess.run([*AUTOTRACE, "doctor", "--json"], capture_output=True, timeout=300).stdout
    features = {feature["name"]: feature for feature in json.loads(said)}
    working = [name for name in ("fentry", "kprobe", "tracepoint") if features[f"socket hooks: {name}"]["ok"]]
    row = features["io_uring"]
    if working[0] == "tracepoint":
        assert not row["ok"]
        assert not row["needed"]
        assert row["detail"] == "is not seen by tracepoint hooks"
    else:
        assert row["ok"]
        assert row["detail"] == f"is seen by {working[0]} hooks"
