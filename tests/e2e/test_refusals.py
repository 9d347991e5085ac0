"""What cannot be done is refused in one sentence, with an exit code that is not 0."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from harness import (
    POWERLESS,
    cli,
    running,
)


def _run(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    quiet = ("--metrics-port", "0", "--console", "off", "--runtime-dir", str(tmp_path))
    return cli("run", *quiet, "--", *command)


def _check_sentence(ended: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    sentence = ended.stderr.strip().splitlines()[-1]
    assert sentence.startswith("Error: ")
    for part in parts:
        assert part in sentence


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    _check_sentence(_run(tmp_path, str(tmp_path / "nothing")), 127, "there is no such program")
    _check_sentence(_run(tmp_path, str(tmp_path)), 126, "may not be executed")


def test_without_privileges(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    ended = cli("run", "--metrics-port", "0", "--", "touch", str(touched), before=tuple(POWERLESS))
    _check_sentence(ended, 1, "CAP_BPF", "sudo")
    assert not touched.exists()
    _check_sentence(cli("record", str(touched), "--port", "1", before=tuple(POWERLESS)), 1, "sudo")
    assert not touched.exists()


def test_a_pid_that_is_gone(tmp_path: Path) -> None:
    with running(["sleep", "60"]) as gone:
        pass
    _check_sentence(cli("run", "--pid", str(gone.pid)), 1, f"No process has pid {gone.pid}")
    _check_sentence(cli("explain", str(gone.pid)), 1, f"No process has pid {gone.pid}")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("prot: 8080\n", "prot"),
        ("port: [web]\n", "port"),
        ("port: [80\n", "config.yaml"),
        ("- port\n", "config.yaml"),
    ],
)
def test_a_bad_configuration(tmp_path: Path, text: str, part: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    _check_sentence(cli("run", "--config", str(config)), 2, part)


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    _check_sentence(cli("run", "--config", str(tmp_path / "none.yaml")), 2, "none.yaml")


def test_nothing_to_watch() -> None:
    _check_sentence(cli("run"), 2, "--pid", "--port")


def test_no_agent_to_ask(tmp_path: Path) -> None:
    _check_sentence(cli("status", "--runtime-dir", str(tmp_path)), 1, "No agent is running")
