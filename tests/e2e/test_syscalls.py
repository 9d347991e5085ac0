"""Every system call that reads or writes a socket: one exchange on each side, whatever the calls are like."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conversation import SERVICE, Conversation, build, check, exchanges, hold
from harness import Traced, free_ports, log_entries, read_spans, wait_for
from kernel_state import attached_programs, flavour_in_use, loaded, program_id

from autotrace.kernel.send_ends import CALM

READS = ["read", "readv", "recvfrom", "recvmsg", "recvmmsg", "splice"]
WRITES = ["write", "writev", "sendto", "sendmsg", "sendmmsg", "sendfile", "splice"]
MEGABYTES_5 = 5 * 1024 * 1024


@pytest.mark.core
def test_every_pair_of_calls(tmp_path: Path) -> None:
    conversations = [
        Conversation(f"/{read}/{write}", options={"read": read, "write": write})
        for read in READS
        for write in WRITES
    ]
    result = hold(tmp_path, conversations)
    for conversation in conversations:
        check(result, conversation)
    assert len(result.spans) == 2 * sum(conversation.rounds for conversation in conversations)


@pytest.mark.core
def test_pages_of_a_file_to_a_unix_socket(tmp_path: Path) -> None:
    """Until Linux 6.5 they do not take the way of the other sends."""
    where = {"family": "unix", "address": tmp_path / "socket"}
    conversations = [
        Conversation(f"/pages/{write}", options={"write": write, **where}) for write in ("sendfile", "splice")
    ]
    result = hold(tmp_path, conversations)
    for conversation in conversations:
        check(result, conversation)


@pytest.mark.parametrize("family", ["inet", "unix"])
def test_unusual_ways_to_call(tmp_path: Path, family: str) -> None:
    head = 700
    small = {"request_size": 600, "response_size": 900}
    ways = {
        "peek": Conversation("/peek", options={"peek": 1}),
        "peek-recvmsg": Conversation("/peek-recvmsg", options={"peek": 1, "read": "recvmsg", "piece": 1000}),
        "waitall": Conversation("/waitall", options={"waitall": 1, "read": "recvfrom", "pause": 5}),
        "waitall-recvmsg": Conversation("/waitall-recvmsg", options={"waitall": 1, "read": "recvmsg"}),
        "refused-and-partial": Conversation(
            "/refused-and-partial",
            response_size=MEGABYTES_5,
            request_size=MEGABYTES_5,
            options={"nonblock": 1, "sndbuf": 4608, "pause": 30},
        ),
        "refused-vectors": Conversation(
            "/refused-vectors",
            request_size=MEGABYTES_5,
            options={"nonblock": 1, "sndbuf": 4608, "write": "writev", "iov": 50, "read": "readv"},
        ),
        "refused-sendfile": Conversation(
            "/refused-sendfile",
            response_size=MEGABYTES_5,
            options={"nonblock": 1, "sndbuf": 4608, "write": "sendfile", "read": "recvmsg"},
        ),
        "one-byte-each": Conversation("/one-byte-each", **small, options={"piece": 1}),
        "one-byte-each-polled": Conversation(
            "/one-byte-each-polled", **small, options={"piece": 1, "nonblock": 1, "write": "sendmsg"}
        ),
        "seven-bytes-in-three-pieces": Conversation(
            "/seven-bytes-in-three-pieces",
            **small,
            options={"piece": 7, "write": "writev", "read": "readv"},
        ),
        "sixty-pieces": Conversation(
            "/sixty-pieces", **small, options={"iov": 60, "write": "sendmsg", "read": "recvmsg"}
        ),
        "five-hundred-pieces": Conversation(
            "/five-hundred-pieces", **small, options={"iov": 500, "write": "writev", "read": "readv"}
        ),
        "thousand-pieces": Conversation(
            "/thousand-pieces", options={"iov": 1000, "write": "sendmsg", "read": "recvmsg"}
        ),
        "empty-writes": Conversation("/empty-writes", options={"empty": 1, "piece": 3000}),
        "empty-writes-in-head": Conversation(
            "/empty-writes-in-head",
            **small,
            options={"empty": 1, "piece": head // 100},
        ),
        "nothing-in-it": Conversation("/nothing-in-it", request_size=0, response_size=0),
    }
    where = {"inet": {}, "unix": {"family": "unix", "address": tmp_path / "socket"}}[family]
    for conversation in ways.values():
        conversation.options.update(where)
        if family == "unix" and "sndbuf" in conversation.options:
            conversation.request_size = min(conversation.request_size, 500_000)
            conversation.response_size = min(conversation.response_size, 500_000)
    result = hold(tmp_path, list(ways.values()))
    for conversation in ways.values():
        check(result, conversation)


def test_memory_that_was_never_touched(tmp_path: Path) -> None:
    """It cannot be read before the call itself has brought it in: it is captured then, maybe after the other
    side has read it. Then the two ends are not joined, but neither is missing."""
    conversations = [
        Conversation(f"/cold/{write}", options={"cold": 1, "write": write}) for write in WRITES[:5]
    ]
    result = hold(tmp_path, conversations)
    by_id = {span.span_id: span for span in result.spans}
    for conversation in conversations:
        server, client = exchanges(result, conversation.path)
        assert [len(server), len(client)] == [conversation.rounds] * 2, result.said
        assert {span.attributes["http.request.body.size"] for span in server + client} == {30_000}
        assert {span.attributes["http.response.body.size"] for span in server + client} == {50_000}
    assert all(by_id[s.parent_id].path == s.path for s in result.spans if s.parent_id)


@pytest.mark.core
def test_memory_that_was_never_touched_after_a_calm(tmp_path: Path) -> None:
    """fentry leaves the ends of sends alone after so many records without such memory. What the first such send
    says is missing then, and nothing else is."""
    program = build(SERVICE)
    calm = Conversation("/calm", 10, 10, rounds=CALM // 2)
    first, later = (Conversation(f"/{when}", options={"cold": 1}) for when in ("first", "later"))
    steps = [tmp_path / name for name in ("calm", "first", "later")]
    script = tmp_path / "script.sh"
    script.write_text(
        "\n".join(
            f"until [ -e {step}.go ]; do sleep 0.1; done; {each.command(program, tmp_path)}; touch {step}.done"
            for step, each in zip(steps, (calm, first, later), strict=True)
        )
    )
    fentry = flavour_in_use() == "fentry"
    with Traced(tmp_path / "agent", ["bash", str(script)]) as agent:
        pid = agent.process.pid
        wait_for(lambda: loaded(pid), "the programs to be loaded")
        names = ("tcp_send_ends", "tcp_send_ends_again") if fentry else ()
        ends = {program_id(pid, name) for name in names}
        for step, looked_at in zip(steps, (True, False, True), strict=True):
            if fentry:
                wait_for(
                    lambda looked_at=looked_at: bool(ends & attached_programs(pid)) is looked_at,
                    f"the ends of sends to be looked at: {looked_at}",
                )
            step.with_suffix(".go").touch()
            wait_for(step.with_suffix(".done").exists, f"the conversation {step.name}")
        result = agent.finish()
    result.check_ledger()
    check(result, calm)
    server, client = exchanges(result, later.path)
    assert [len(server), len(client)] == [later.rounds] * 2, result.said
    assert {span.attributes["http.response.body.size"] for span in server + client} == {50_000}
    assert "read_faults" in result.said
    assert {span.status for span in result.spans} <= {0, 200}


@pytest.mark.core
def test_memory_that_comes_in_the_middle_of_a_send(tmp_path: Path) -> None:
    """The agent asks in the middle of the send how far it has come, and once more when it is over: the answer is
    told without anything that happens after it."""
    (port,) = free_ports(1)
    log = tmp_path / "log"
    with Traced(tmp_path / "agent", [str(build("slow_memory")), str(port), str(log)]) as agent:
        wait_for(log.exists, "the answer to be sent")
        wait_for(lambda: agent.json.exists() and len(read_spans(agent.json)) == 2, "both spans")
        result = agent.finish()
    result.check_ledger()
    assert not result.dropped, result.said
    (answered,) = log_entries(log)
    sizes = {span.attributes["http.response.body.size"] for span in result.spans}
    assert (sizes, {span.status for span in result.spans}) == ({answered["sent"]}, {200})


@pytest.mark.core
def test_a_receive_that_waits_and_then_gets_the_end_too(tmp_path: Path) -> None:
    """The end of the stream counts as one byte in TCP's numbers, and is none of the body."""
    size = 5000
    program = f"""
import os, socket, time
server = socket.create_server(("127.0.0.1", 0))
if os.fork():
    connection = server.accept()[0]
    connection.recv(9999)
    connection.send(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
    connection.send(bytes({size - 1000}))
    time.sleep(0.5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    connection.send(bytes(1000))
    connection.close()  # what was held back goes with the FIN
    os.wait()
else:
    connection = socket.create_connection(server.getsockname())
    connection.send(b"GET /waited HTTP/1.0\\r\\n\\r\\n")
    answer = connection.recv(99999, socket.MSG_WAITALL)
    open({str(tmp_path / "log")!r}, "w").write(str(len(answer) - len(b"HTTP/1.0 200 OK\\r\\n\\r\\n")))
"""
    with Traced(tmp_path / "agent", [sys.executable, "-c", program]) as agent:
        agent.process.wait(60)
        result = agent.finish(0)
    result.check_ledger()
    assert (tmp_path / "log").read_text() == str(size)
    assert {span.attributes["http.response.body.size"] for span in result.spans} == {size}, result.spans
    assert len(result.spans) == 2
    assert "protocols:" not in result.said


def test_a_head_larger_than_what_is_captured(tmp_path: Path) -> None:
    """Method, path and status are in the part that is there. That it is all is known on either side only when the
    other one speaks: the server's request may be told first, and then is not joined with the client's."""
    conversation = Conversation("/long-head", request_fields=f"Cookie: {'c' * 9000}\r\n", rounds=3)
    plain = Conversation("/plain-after")
    result = hold(tmp_path, [conversation, plain])
    server, client = exchanges(result, "/long-head")
    assert [len(server), len(client)] == [3, 3]
    assert all(span.status == 200 and not span.error for span in server + client)
    assert all(s.parent_id in ("", c.span_id) for s, c in zip(server, client, strict=True))
    assert all(span.attributes["http.response.body.size"] == 50_000 for span in server + client)
    assert all(span.attributes["autotrace.request.partial"] is True for span in server + client)
    assert not [
        s for s in result.spans if s not in server + client and "autotrace.request.partial" in s.attributes
    ]
    check(result, plain)
