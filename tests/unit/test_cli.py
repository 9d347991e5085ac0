"""The command line as a user meets it: what each verb teaches, refuses and passes on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import autotrace
from autotrace.cli import main
from autotrace.control import ControlServer, socket_path

VERBS = ("run", "record", "replay", "status", "doctor", "explain")

STATUS: dict[str, Any] = {
    "version": "9.9",
    "uptime_s": 61.5,
    "memory_bytes": 40 * 2**20,
    "hooks": "tracepoint",
    "processes": [{"pid": 7, "service": "[edge]", "runtime": "nginx", "executable": "/usr/sbin/nginx"}],
    "ledger": {
        "exchanges": {"seen": 10, "emitted": 8, "dropped": {"ring_full": 2}, "in_flight": 0},
        "exporters": {"otlp": {"accepted": 8, "sent": 7, "dropped": {"queue_full": 1}, "queued": 0}},
        "notes": {"http1": {"protocol_error": 1}},
        "kernel": {"lost_request": 2},
    },
}


def invoke(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environment, terminal_width=300)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    handlers = {
        "status": lambda request: {"pid": 4242, **STATUS},
        "explain": lambda request: {"watched": request["pid"] == os.getpid()},
    }
    with ControlServer(socket_path(tmp_path, 4242), handlers):
        yield tmp_path


def test_help_names_every_verb_and_loads_nothing_heavy() -> None:
    script = (
        "import sys; from autotrace.cli import main; main(['--help'], standalone_mode=False); "
        "heavy = {'grpc', 'rich', 'yaml', 'opentelemetry', 'elftools', 'numpy', 'autotrace.agent'}; "
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_teaches_by_example(verb: str) -> None:
    result = invoke(verb, "--help")
    assert result.exit_code == 0
    examples = result.output.partition("Examples:")[2]
    assert f"autotrace {verb}" in examples


def test_version() -> None:
    assert invoke("--version").output.strip() == f"autotrace, version {autotrace.__version__}"


@pytest.mark.parametrize("verb", [("run",), ("record", "events.bin")])
def test_nothing_to_watch_is_refused(verb: tuple[str, ...]) -> None:
    result = invoke(*verb)
    assert result.exit_code == 2
    assert "give --pid, --exe, --port, a program after `--`, or --all" in result.output


def test_a_dead_pid_is_refused() -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    result = invoke("run", "--pid", str(dead.pid))
    assert result.exit_code == 1
    assert f"No process has pid {dead.pid};" in result.output
    assert invoke("explain", str(dead.pid)).exit_code == 1


def test_a_thread_is_refused_with_its_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    result = invoke("run", "--pid", str(thread.native_id))
    done.set()
    thread.join()
    assert result.exit_code == 1
    assert f"is a thread of process {os.getpid()}; give --pid {os.getpid()}." in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "--"), "No program follows `--`"),
        (("run", "python", "app.py"), "A program to start goes after `--`: `-- python app.py`."),
        (("run", "--pid", "1", "--user", "nobody"), "--user goes with a program to start"),
        (("run", "--port", "http"), "--port is 'http', but it must be a whole number from 1 to 65535."),
        (("run", "--ring-size", "3MiB", "--all"), "that is a power of two."),
        (("run", "--config", "/nowhere/autotrace.yaml"), "Cannot read the configuration file"),
        (("run", "--prot", "80"), "Did you mean"),
        (("explain", "0"), "0 is not in the range"),
        (("record",), "Missing argument 'FILE'"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(arguments: tuple[str, ...], sentence: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert sentence in result.output


def test_the_flags_of_the_command_are_its_own() -> None:
    result = invoke("run", "--user", "no-such-user", "--", "python", "--port", "http", "--", "--help")
    assert result.exit_code == 2
    assert "There is no user 'no-such-user'" in result.output


def test_a_bad_variable_is_refused_by_its_name() -> None:
    result = invoke("run", "--all", AUTOTRACE_HEAD_SIZE="1")
    assert result.exit_code == 2
    assert "AUTOTRACE_HEAD_SIZE is '1'" in result.output


def test_a_file_can_say_what_to_watch(tmp_path: Path) -> None:
    file = tmp_path / "autotrace.yaml"
    file.write_text("pid: 4194304\n")
    assert "No process has pid 4194304" in invoke("run", "--config", str(file)).output
    assert "No process has pid 4194304" in invoke("run", AUTOTRACE_CONFIG=str(file)).output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its capabilities")
def test_without_privileges_it_says_so() -> None:
    # A user without capabilities may not be able to read this checkout: drop them after the imports.
    script = (
        "import os, autotrace.config_sources; from autotrace.cli import main; "
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); main(['run', '--all'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == "Error: Tracing needs CAP_BPF and CAP_PERFMON, which this user lacks; run it with sudo.\n"
    )


# --- status -------------------------------------------------------------------------------------------------


def test_status_shows_the_books(agent: Path) -> None:
    result = invoke("status", "--runtime-dir", str(agent), COLUMNS="200")
    assert result.exit_code == 0
    for part in (
        "autotrace 9.9, pid 4242, up 62 s, 40 MiB, hooks: tracepoint",
        "exchanges: seen 10 = emitted 8 + dropped 2 (ring_full 2); in flight 0",
        "export otlp: accepted 8 = sent 7 + dropped 1 (queue_full 1); queued 0",
        "[edge]",
        "/usr/sbin/nginx",
    ):
        assert part in result.output


def test_status_as_json(agent: Path) -> None:
    result = invoke("status", "--json", AUTOTRACE_RUNTIME_DIR=str(agent))
    assert json.loads(result.output) == {"pid": 4242, **STATUS}


def test_status_without_an_agent(tmp_path: Path) -> None:
    result = invoke("status", "--runtime-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "No agent is running" in result.output


def test_status_with_several_agents(agent: Path) -> None:
    with ControlServer(socket_path(agent, 17), {"status": lambda request: {"pid": 17}}):
        result = invoke("status", "--runtime-dir", str(agent))
        assert result.exit_code == 2
        assert "Several agents are running (17, 4242); choose one with --agent PID." in result.output
        result = invoke("status", "--runtime-dir", str(agent), "--agent", "17", "--json")
        assert json.loads(result.output) == {"pid": 17}


def test_status_of_an_agent_that_is_gone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "5.sock"))
    result = invoke("status", "--runtime-dir", str(tmp_path), "--agent", "5")
    assert result.exit_code == 1
    assert "No agent answers at" in result.output


# --- explain and doctor -------------------------------------------------------------------------------------


def test_explain_says_what_a_process_is_and_who_watches_it(agent: Path) -> None:
    result = invoke("explain", str(os.getpid()), "--runtime-dir", str(agent), "--json")
    assert result.exit_code == 0
    explained = json.loads(result.output)
    assert explained["watched_by"] == [4242]
    assert {"topic": "program", "state": "info", "text": str(Path("/proc/self/exe").readlink())} in explained[
        "findings"
    ]
    with subprocess.Popen(["sleep", "60"]) as other:
        shown = invoke("explain", str(other.pid), "--runtime-dir", str(agent), COLUMNS="200").output
        other.kill()
    assert "no running agent watches it" in shown
    assert "sleep" in shown


def test_doctor_ends_with_what_it_found() -> None:
    result = invoke("doctor", "--json")
    features = json.loads(result.stdout)
    assert {"machine", "privileges", "libbpf"} <= {each["name"] for each in features}
    missing = [each["name"] for each in features if each["needed"] and not each["ok"]]
    assert result.exit_code == (1 if missing else 0)
    shown = invoke("doctor", COLUMNS="300").output
    assert all(each["name"] in shown for each in features)
