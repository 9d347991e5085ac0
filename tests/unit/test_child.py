"""The child is real: it is held before its exec, released, signalled, and its end is reported."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from autotrace.child import Child
from autotrace.errors import AutotraceError

Hold = Callable[..., Child]


@pytest.fixture
def hold() -> Iterator[Hold]:
    children: list[Child] = []

    def make(*command: str, user: str = "") -> Child:
        children.append(Child.hold(command, user))
        return children[-1]

    yield make
    for child in children:
        child.send_signal(signal.SIGKILL)
        child.close()


def shell(script: str, *arguments: object) -> Sequence[str]:
    return ("/bin/sh", "-c", script, "sh", *map(str, arguments))


def program_of(pid: int | str) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()


def open_files_of(pid: int | str) -> dict[int, str]:
    opened = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            opened[int(path.name)] = str(path.readlink())
    return opened


def test_it_executes_nothing_before_it_is_released(hold: Hold, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    child = hold(*shell('echo started > "$1"', fifo))
    assert program_of(child.pid) == program_of("self")
    assert not child.released
    assert os.read(reader, 100) == b""  # nobody has opened the other end
    child.release()
    assert child.released
    assert child.wait() == 0
    assert os.read(reader, 100) == b"started\n"
    os.close(reader)


def test_release_returns_when_the_new_program_runs(hold: Hold) -> None:
    child = hold("sleep", "60")
    child.release()
    assert program_of(child.pid).name in ("sleep", "coreutils", "busybox")


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
)
def test_the_exit_code_is_a_shells(hold: Hold, script: str, code: int) -> None:
    child = hold(*shell(script))
    child.release()
    assert child.exit_code is None
    assert child.wait() == code
    assert child.wait() == child.exit_code == code


def test_signals_reach_it(hold: Hold, tmp_path: Path) -> None:
    fifo = tmp_path / "ready"
    os.mkfifo(fifo)
    child = hold(*shell('trap "exit 33" USR1; echo ready > "$1"; while :; do sleep 0.05; done', fifo))
    child.release()
    assert fifo.read_text() == "ready\n"
    child.send_signal(signal.SIGUSR1)
    assert child.wait() == 33
    child.send_signal(signal.SIGUSR1)  # gone: nothing happens


def test_a_signal_ends_it_while_it_is_held(hold: Hold) -> None:
    child = hold("sleep", "60")
    child.send_signal(signal.SIGTERM)
    child.release()
    assert child.wait() == 143


def test_closing_a_held_child_ends_it_without_exec(tmp_path: Path) -> None:
    child = Child.hold(("touch", str(tmp_path / "made")))
    child.close()
    assert child.exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_held_child_ends_with_its_parent(tmp_path: Path) -> None:
    parent = (
        "import os, sys; from autotrace.child import Child; "
        "child = Child.hold(('touch', sys.argv[1])); print(child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent, str(tmp_path / "made")], stdout=subprocess.PIPE, check=False
    )  # returns when the child, too, has closed the pipe
    assert done.returncode == -signal.SIGKILL
    assert int(done.stdout) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_not_there(hold: Hold) -> None:
    child = hold("no-such-program-anywhere")
    with pytest.raises(AutotraceError, match="there is no such program") as caught:
        child.release()
    assert caught.value.exit_code == 127
    assert not child.released


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [(b"#!/bin/sh\n", 0o644, "may not be executed"), (b"\x00\x01nonsense", 0o755, "not a program for this")],
)
def test_a_file_that_cannot_be_executed(
    hold: Hold, tmp_path: Path, content: bytes, mode: int, reason: str
) -> None:
    program = tmp_path / "program"
    program.write_bytes(content)
    program.chmod(mode)
    child = hold(str(program))
    with pytest.raises(AutotraceError, match=reason) as caught:
        child.release()
    assert caught.value.exit_code == 126


def test_a_command_with_a_nul_is_refused(hold: Hold) -> None:
    child = hold("echo", "a\0b")
    with pytest.raises(AutotraceError, match="Invalid argument"):
        child.release()


def test_it_starts_with_the_dispositions_a_shell_would_give(hold: Hold, tmp_path: Path) -> None:
    output = tmp_path / "status"
    child = hold(*shell('grep "^Sig[BI]" /proc/self/status > "$1"', output))
    child.release()
    assert child.wait() == 0
    fields = dict(line.split() for line in output.read_text().splitlines())
    ignored = int(fields["SigIgn:"], 16)
    assert int(fields["SigBlk:"], 16) == 0
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM):
        assert not ignored >> (number - 1) & 1, number


def test_what_nohup_ignores_stays_ignored(hold: Hold, tmp_path: Path) -> None:
    output = tmp_path / "status"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        child = hold(*shell('grep "^SigIgn" /proc/self/status > "$1"', output))
    finally:
        signal.signal(signal.SIGHUP, before)
    child.release()
    assert child.wait() == 0
    assert int(output.read_text().split()[1], 16) >> (signal.SIGHUP - 1) & 1


def test_it_inherits_no_file_descriptor_of_ours(hold: Hold) -> None:
    child = hold("sleep", "60")
    child.release()
    ours = open_files_of("self")
    shared = {ours[number] for number in ours if number <= 2 or os.get_inheritable(number)}
    assert not set(open_files_of(child.pid).values()) & (set(ours.values()) - shared)


def test_it_stays_in_our_group_and_session(hold: Hold) -> None:
    child = hold("sleep", "60")
    child.release()
    assert (os.getpgid(child.pid), os.getsid(child.pid)) == (os.getpgrp(), os.getsid(0))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_runs_as_the_user_that_is_named(hold: Hold) -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        output = Path(directory) / "who"
        child = hold(*shell('echo "$(id -u) $(id -g) $(id -G) $HOME $USER" > "$1"', output), user="nobody")
        child.release()
        assert child.wait() == 0
        groups = " ".join(map(str, os.getgrouplist("nobody", nobody.pw_gid)))
        expected = f"{nobody.pw_uid} {nobody.pw_gid} {groups} {nobody.pw_dir} nobody\n"
        assert output.read_text() == expected


def test_a_user_that_does_not_exist() -> None:
    with pytest.raises(AutotraceError, match="There is no user 'no-such-user'") as caught:
        Child.hold(("true",), "no-such-user")
    assert caught.value.exit_code == 2
