"""A session in a process of its own, with a real child, real signals, a real terminal.

Only the agent is a stand-in, because the real one needs a kernel and root: it prints what is asked of it.
"""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotrace.control import query, socket_path

DRIVER = """
import os, sys, threading
from pathlib import Path
from autotrace.child import Child
from autotrace.commands.session import Session, set_up_logging
from autotrace.config import Config
from autotrace.errors import AutotraceError

class StandIn:
    def __init__(self, config, log):
        self.stopped = threading.Event()
    def start(self):
        if mode == "cannot-start":
            raise AutotraceError("Cannot attach: no BTF; use another kernel.")
        print("start", flush=True)
    def watch(self, pid):
        print("watch", "held" if os.readlink(f"/proc/{pid}/exe") == os.readlink("/proc/self/exe") else "late")
    def run(self):
        print("run", flush=True)
        if mode == "breaks":
            raise AutotraceError("The ring buffer is gone; report this.")
        self.stopped.wait()
    def stop(self):
        self.stopped.set()
    def close(self):
        print("close", flush=True)
        if mode == "slow-close":
            threading.Event().wait()
    def status(self):
        return {"processes": [{"pid": 7}], "ledger": {}}

# Unbuffered (PYTHONUNBUFFERED), a line and its end are written apart, and the command's lines come between.
sys.stdout.reconfigure(line_buffering=True, write_through=False)
mode, directory, *command = sys.argv[1:]
config = Config(command=tuple(command), runtime_dir=Path(directory))
child = Child.hold(config.command) if command else None
try:
    code = Session(config, child, set_up_logging("info"), StandIn).run()
except AutotraceError as error:
    print("error", error, flush=True)
    code = error.exit_code
finally:
    if child:
        child.close()
sys.exit(code)
"""

COUNTS_INTERRUPTS = """
import os, signal, time
interrupts = []
def interrupt(number, frame):
    interrupts.append(number)
    print("woken", flush=True)
signal.signal(signal.SIGINT, interrupt)
def end(number, frame):
    print("interrupts", len(interrupts), flush=True)
    os._exit(5)
signal.signal(signal.SIGUSR1, end)
print("ready", flush=True)
while True:
    time.sleep(0.02)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "agents"


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def start(
    running: list[subprocess.Popen[str]], mode: str, directory: Path, *command: str
) -> subprocess.Popen[str]:
    running.append(
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, mode, str(directory), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    )
    return running[-1]


def await_line(process: subprocess.Popen[str], wanted: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.rstrip() == wanted:
            return
    pytest.fail(f"{wanted!r} never came")


def finish(mode: str, directory: Path, *command: str) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, mode, str(directory), *command],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 9", 9), ("kill -KILL $$", 137)])
def test_it_ends_with_the_commands_exit_code_after_the_flush(directory: Path, script: str, code: int) -> None:
    ended, lines, _ = finish("works", directory, "sh", "-c", f"echo command; {script}")
    assert ended == code
    assert lines[:2] == ["start", "watch held"]
    assert sorted(lines[2:-1]) == ["command", "run"]
    assert lines[-1] == "close"
    assert list(directory.iterdir()) == []


def test_a_command_that_is_not_there(directory: Path) -> None:
    code, lines, _ = finish("works", directory, "no-such-program-anywhere")
    assert code == 127
    assert lines[-2] == "close"
    assert lines[-1].startswith("error Cannot start 'no-such-program-anywhere'")


def test_an_agent_that_cannot_start_starts_no_command(directory: Path) -> None:
    code, lines, _ = finish("cannot-start", directory, "echo", "command")
    assert (code, lines) == (1, ["close", "error Cannot attach: no BTF; use another kernel."])


def test_a_command_outlives_an_agent_that_breaks(directory: Path) -> None:
    code, lines, log = finish("breaks", directory, "sh", "-c", "sleep 0.3; echo command; exit 4")
    assert code == 4
    assert lines[-1] == "command"
    assert "The command goes on untraced: The ring buffer is gone; report this." in log


def test_an_agent_that_breaks_without_a_command(directory: Path) -> None:
    code, lines, _ = finish("breaks", directory)
    assert (code, lines[-1]) == (1, "error The ring buffer is gone; report this.")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_good_order(
    running: list[subprocess.Popen[str]], directory: Path, number: signal.Signals
) -> None:
    process = start(running, "works", directory)
    await_line(process, "run")
    process.send_signal(number)
    output, log = process.communicate()
    assert process.returncode == 0
    assert output == "close\n"
    assert "once more (Ctrl-C) to quit at once" in log


def test_a_second_signal_ends_it_at_once(running: list[subprocess.Popen[str]], directory: Path) -> None:
    process = start(running, "slow-close", directory)
    await_line(process, "run")
    process.send_signal(signal.SIGINT)
    await_line(process, "close")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGWINCH])
def test_signals_go_to_the_command(
    running: list[subprocess.Popen[str]], directory: Path, number: signal.Signals
) -> None:
    trap = (
        "import signal, sys, time; n = int(sys.argv[1]); signal.signal(n, lambda *_: sys.exit(40 + n)); "
        "print('ready', flush=True); [time.sleep(0.02) for _ in iter(int, 1)]"
    )
    process = start(running, "works", directory, sys.executable, "-c", trap, str(int(number)))
    await_line(process, "ready")
    process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode == 40 + number
    assert output.endswith("close\n")


def test_a_command_that_survives_a_signal_goes_on_traced(
    running: list[subprocess.Popen[str]], directory: Path
) -> None:
    process = start(running, "works", directory, sys.executable, "-c", COUNTS_INTERRUPTS)
    await_line(process, "ready")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        await_line(process, "woken")
    process.send_signal(signal.SIGUSR1)
    await_line(process, "interrupts 3")
    process.communicate()
    assert process.returncode == 5


def test_ctrl_c_in_a_terminal_reaches_the_command_once(directory: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(
            sys.executable,
            [sys.executable, "-c", DRIVER, "works", str(directory), sys.executable, "-c", COUNTS_INTERRUPTS],
        )
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        shown = read_until(screen, b"ready")
        os.write(terminal, b"\x03")
        shown += read_until(screen, b"woken")
        os.kill(pid, signal.SIGUSR1)  # forwarded, and so after whatever else would have been
        shown += read_until(screen, b"interrupts 1\r\n")
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 5, shown


def read_until(screen: object, wanted: bytes) -> bytes:
    shown = b""
    while wanted not in shown:
        shown += screen.read(1)  # type: ignore[attr-defined]
    return shown


def test_a_running_session_answers(running: list[subprocess.Popen[str]], directory: Path) -> None:
    process = start(running, "works", directory)
    await_line(process, "run")
    path = socket_path(directory, process.pid)
    answer = query(path, "status")
    assert answer["pid"] == process.pid
    assert answer["memory_bytes"] > 1_000_000
    assert answer["processes"] == [{"pid": 7}]
    assert query(path, "explain", pid=7) == {"watched": True}
    assert query(path, "explain", pid=8) == {"watched": False}


def test_without_a_status_socket_it_still_runs(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    code, lines, log = finish("works", blocked, "true")
    assert (code, lines[-1]) == (0, "close")
    assert "Cannot make the status socket" in log
