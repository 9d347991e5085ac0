"""Runs services/gogrpc/chain under the agent: a driver asks a front, which asks a back; and holds the parents found
against the names of the calls, which tell the truth."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from harness import SERVICES, Result, SpanRecord, Traced, free_ports, listening, log_entries, shell, wait_for

SOURCE = SERVICES / "gogrpc"
NO_NETWORK = ("dial tcp", "i/o timeout", "no such host")


def build_chain(directory: Path, *flags: str, grpc: str = "", go: str = "local") -> tuple[Path, Path, Path]:
    """The programs driver, front and back, which are one. `grpc` is the release of gRPC-Go, the one of SOURCE by
    default; `go` is a toolchain. Skips the test if they cannot be had."""
    compiler = shutil.which("go") or "/usr/local/go/bin/go"
    if not Path(compiler).exists():
        pytest.skip("needs Go")
    directory.mkdir(exist_ok=True)
    variables = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": go}
    work, package = SOURCE, "./chain"
    if grpc:
        work, package = directory / "source", "."
        variables["GOFLAGS"] = "-mod=mod"
        work.mkdir()
        shutil.copy(SOURCE / "chain" / "main.go", work)
        (work / "go.mod").write_text(f"module chain\n\ngo 1.18\n\nrequire google.golang.org/grpc {grpc}\n")
        _go([compiler, "mod", "tidy"], work, variables)
    front, back, driver = (directory / name for name in ("front", "back", "driver"))
    _go([compiler, "build", *flags, "-o", str(front), package], work, variables)
    for copy in (back, driver):
        shutil.copy(front, copy)
    return driver, front, back


def _go(command: list[str], work: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    if done.returncode and any(word in done.stderr for word in NO_NETWORK):
        pytest.skip(f"cannot be downloaded here: {done.stderr.splitlines()[-1]}")
    assert not done.returncode, done.stderr


def run_chain(
    directory: Path,
    programs: tuple[Path, Path, Path],
    kinds: list[str],
    count: int = 600,
    at_once: int = 50,
    options: tuple[str, ...] = (),
    prefix: str = "",
) -> Result:
    """The agent watches front and back from their start, and the driver. It probes nothing but these programs."""
    driver, front, back = programs
    ports = free_ports(4)
    rpc, web, next_rpc, next_web = ports
    go, done = directory / "go", directory / "done"
    command = shell(
        f"{prefix} {back} serve {next_rpc} {next_web} {directory}/back.log {next_rpc} {next_web}",
        f"{prefix} {front} serve {rpc} {web} {directory}/front.log {next_rpc} {next_web}",
        f"(until [ -e {go} ]; do sleep 0.1; done; "
        f"{prefix} {driver} drive {rpc} {web} {count} {at_once} {' '.join(kinds)}; touch {done}; exec sleep 60)",
    )
    options = ("--runtime-probes", f"{programs[0].parent}/*", "--ring-size", "64MiB", *options)
    with Traced(directory / "agent", command, options) as agent:
        wait_for(lambda: all(map(listening, ports)), "the services")
        asked_all(agent, front, back)
        go.touch()
        wait_for(done.exists, "the driver", 120)
        result = agent.finish()
    result.check_ledger()
    assert not result.dropped, result.said
    return result


def asked_all(agent: Traced, *programs: Path) -> None:
    """Wait until the agent asks the runtimes of all these programs."""
    for program in programs:
        wanted = [f"asks the runtime of {program} ({name}" for name in ("gRPC-Go's client", "gRPC-Go's server",
                  "Go's net/http client", "Go's net/http server")]  # fmt: skip
        wait_for(
            lambda wanted=wanted: all(text in agent.said() for text in wanted), f"the probes of {program}", 60
        )


def name_of(span: SpanRecord) -> str:
    """KIND-NUMBER of what was asked."""
    return str(span.attributes.get("rpc.method") or span.path).rpartition("/")[2]


def number_of(name: str) -> int:
    return int(name.split("-")[1])


def check_chain(
    result: Result,
    directory: Path,
    certain: set[str],
    front: str = "front",
    whole: tuple[str, ...] = ("front", "back"),
) -> Counter[str]:
    """Every request of the services of `whole` has a span, and no call another's parent; each call of a request of
    a `certain` kind has its parent. Returns how calls were linked."""
    by_id = {span.span_id: span for span in result.spans}
    for service in whole:
        served = Counter(str(entry["served"]) for entry in log_entries(directory / f"{service}.log"))
        assert Counter(name_of(span) for span in result.server(service)) == served, service
    kinds = {number_of(name_of(span)): name_of(span).split("-")[0] for span in result.server(front)}
    web = {number_of(name_of(span)) for span in result.server(front) if "rpc.method" not in span.attributes}
    links: Counter[str] = Counter()
    for span in result.client(front):
        if "-" not in name_of(span):
            assert span.attributes["error.type"] == "ECONNREFUSED", span  # the back did not listen yet
            continue
        number = number_of(name_of(span))
        kind = ("web/" if number in web else "") + kinds[number]
        links[f"{kind} {span.link}"] += 1
        if span.parent_id:
            above = by_id[span.parent_id]
            assert (above.kind, above.service, number_of(name_of(above))) == ("server", front, number), (
                span,
                above,
            )
            assert span.link == "goroutine", span
        else:
            assert kind not in certain, (span, result.said)
    return links
