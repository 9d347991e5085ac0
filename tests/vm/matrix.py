"""The matrix: kernel x flavour of the socket hooks x end-to-end test, each in a guest of its own."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

from tests.vm import kernels
from tests.vm.guest import SHARE, Guest, GuestError

ROOT = Path(__file__).parents[2]
END_TO_END = "tests/e2e"
FLAVOURS = ("fentry", "kprobe", "tracepoint")
RESULTS = ROOT / "build" / "vmtest.json"

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
UNSUPPORTED = "unsupported"
"""The agent does not start with this flavour on this kernel."""
UNAVAILABLE = "unavailable"
"""The kernel cannot be had on this machine."""

EVERY_TEST = "*"
"""Stands for all tests in a result that concerns a whole kernel or flavour."""

START_SECONDS = 180
FLAVOUR_SECONDS = 3600
TEST_SECONDS = 600


class Result(NamedTuple):
    """What became of one test; `reason` says why it did not pass."""

    kernel: str
    flavour: str
    test: str
    outcome: str
    reason: str = ""


def selection(tests: str) -> list[str]:
    """What to tell pytest for `core`, for `all`, or for words of pytest's own."""
    named = {"core": [END_TO_END, "-m", "core"], "all": [END_TO_END]}
    return named.get(tests) or shlex.split(tests)


def run(versions: Iterable[str], flavours: tuple[str, ...], chosen: list[str]) -> list[Result]:
    """Run the tests that are `chosen`, in pytest's words, under each flavour on each kernel."""
    results: list[Result] = []
    for version in versions:
        try:
            kernel = kernels.get(version)
        except kernels.KernelUnavailableError as error:
            print(f"==> {version}: {error}", flush=True)
            results += [Result(version, each, EVERY_TEST, UNAVAILABLE, str(error)) for each in flavours]
            continue
        for flavour in flavours:
            results += run_flavour(kernel, flavour, chosen)
    return results


def run_flavour(kernel: kernels.Kernel, flavour: str, chosen: list[str]) -> list[Result]:
    """Boot a guest and run the tests in it under one flavour; show what they say, and the console on failure."""
    print(f"==> {kernel.version} {flavour}: booting {kernel.release}", flush=True)
    start = time.monotonic()
    try:
        with Guest(kernel) as guest:
            print(f"    booted in {time.monotonic() - start:.0f} s", flush=True)
            results = _in_guest(guest, kernel.version, flavour, chosen)
            console = guest.console()
    except GuestError as error:
        print(error, flush=True)
        return [Result(kernel.version, flavour, EVERY_TEST, FAILED, str(error).splitlines()[0])]
    if any(result.outcome == FAILED for result in results):
        print(f"    the guest's kernel said ({guest.log}):\n{console}", flush=True)
    print(f"    {_counts(results)} in {time.monotonic() - start:.0f} s", flush=True)
    return results


def _in_guest(guest: Guest, version: str, flavour: str, chosen: list[str]) -> list[Result]:
    environment = {"AUTOTRACE_HOOKS": flavour}
    python = f"cd {shlex.quote(str(ROOT))} && {shlex.quote(sys.executable)}"
    tried = guest.run(
        f"{python} -m autotrace.cli run --console off --metrics-port 0 --runtime-dir /run/autotrace -- true",
        START_SECONDS,
        environment,
    )
    if tried.code:
        print(tried.output, flush=True)
        said = [line for line in tried.output.splitlines() if line.startswith("Error: ")]
        reason = said[0].removeprefix("Error: ") if said else f"the agent ended with code {tried.code}"
        outcome = UNSUPPORTED if said else FAILED
        return [Result(version, flavour, EVERY_TEST, outcome, reason)]
    arguments = [
        *("-v", "--tb=short", "--no-header", "--color=no", "-p", "no:cacheprovider"),
        *(f"--timeout={TEST_SECONDS}", f"--junit-xml={SHARE}/junit.xml", *chosen),
    ]
    ran = guest.run(f"{python} -m pytest {shlex.join(arguments)}", FLAVOUR_SECONDS, environment, follow=True)
    report = guest.share / "junit.xml"
    if not report.exists():
        reason = f"pytest ended with code {ran.code} and no report"
        return [Result(version, flavour, EVERY_TEST, FAILED, reason)]
    results = [Result(version, flavour, *case) for case in _cases(report)]
    return results or [Result(version, flavour, EVERY_TEST, FAILED, "no test was selected")]


def _cases(report: Path) -> Iterator[tuple[str, str, str]]:
    """Each test of a JUnit report: its pytest id, its outcome, the reason if it did not pass."""
    for case in ElementTree.parse(report).iter("testcase"):
        test = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        outcome, reason = PASSED, ""
        for verdict in case:
            if verdict.tag in ("failure", "error"):
                outcome, reason = FAILED, (verdict.get("message") or verdict.tag).splitlines()[0]
            elif verdict.tag == "skipped":
                outcome, reason = SKIPPED, verdict.get("message", "")
        yield test, outcome, reason


# --- what is shown ------------------------------------------------------------------------------------------


def write(results: list[Result]) -> None:
    """Write build/vmtest.json."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"results": [result._asdict() for result in results]}, indent=1) + "\n")


def show(results: list[Result]) -> None:
    """Print the table: a row for each file of tests; then all that failed or did not run, with the reason."""
    columns = list(dict.fromkeys((result.kernel, result.flavour) for result in results))
    files = sorted({_file(result) for result in results if result.test != EVERY_TEST})
    table = Table("test")
    for kernel, flavour in columns:
        table.add_column(f"{kernel}\n{flavour}")
    for file in files or [EVERY_TEST]:
        cells = []
        for column in columns:
            of_column = [result for result in results if result[:2] == column]
            cells.append(_counts([r for r in of_column if r.test == EVERY_TEST or _file(r) == file]))
        table.add_row(Path(file).name, *cells)
    console = Console(soft_wrap=True)
    console.print(table)
    for result in results:
        if result.outcome != PASSED:
            console.print(
                f"{result.kernel} {result.flavour} {result.test}: {result.outcome}: {result.reason}",
                markup=False,
                highlight=False,
            )


def _file(result: Result) -> str:
    return result.test.partition("::")[0]


def _counts(results: list[Result]) -> str:
    outcomes = Counter(result.outcome for result in results)
    if all(result.test == EVERY_TEST for result in results):
        return ", ".join(outcomes)
    return ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
