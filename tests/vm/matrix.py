"""The matrix: kernel x flavour of the socket hooks x end-to-end test, each in a guest of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

from tests.vm import kernels
from tests.vm.guest import MEMORY, SHARE, Guest, GuestError

ROOT = Path(__file__).parents[2]
END_TO_END = "tests/e2e"
FLAVOURS = ("fentry", "kprobe", "tracepoint")
RESULTS = ROOT / "build" / "vmtest.json"

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
UNSUPPORTED = "unsupported"
"""The agent does not start with this flavour on this kernel."""
UNAVAILABLE = "unavailable"
"""The kernel cannot be had on this machine."""

CORE = "pytest.mark.core"
ENDED = re.compile(r"\S+::.* (PASSED|FAILED|SKIPPED|ERROR)\b")
"""What pytest -v writes when a test has ended."""

EVERY_TEST = "*"
"""Stands for all tests in a result that concerns a whole kernel or flavour."""

START_SECONDS = 180
FLAVOUR_SECONDS = 2 * 3600
TEST_SECONDS = 600

PASSED_ON = ("AUTOTRACE_ATTACH_CYCLES", "AUTOTRACE_GO_TOOLCHAINS")
"""Variables that make tests do more; a guest's tests are told of them."""


class Result(NamedTuple):
    """What became of one test; `reason` says why it did not pass."""

    kernel: str
    flavour: str
    test: str
    outcome: str
    reason: str = ""


def selection(tests: str) -> list[str]:
    """What to tell pytest for `core`, for `all`, or for words of pytest's own."""
    if tests == "core":
        # By file: to look for them in the others takes a guest half a minute.
        files = sorted((ROOT / END_TO_END).glob("test_*.py"))
        return [*(f"{END_TO_END}/{f.name}" for f in files if CORE in f.read_text()), "-m", "core"]
    return [END_TO_END] if tests == "all" else shlex.split(tests)


def run(versions: Iterable[str], flavours: Iterable[str], chosen: list[str]) -> list[Result]:
    """Run the tests that are `chosen`, in pytest's words, under each flavour on each kernel."""
    found = {version: _kernel(version) for version in versions}

    def column(version_and_flavour: tuple[str, str]) -> list[Result]:
        version, flavour = version_and_flavour
        kernel = found[version]
        if isinstance(kernel, str):
            return [Result(version, flavour, EVERY_TEST, UNAVAILABLE, kernel)]
        return _run_flavour(kernel, flavour, chosen)

    with ThreadPoolExecutor(_guests_at_once()) as pool:
        return [result for each in pool.map(column, product(found, flavours)) for result in each]


def _guests_at_once() -> int:
    """A kernel's flavours side by side, if there is memory for that. A guest is busy with one thing most of the
    time: three make use of two cores."""
    found = re.search(r"^MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return max(1, min(len(FLAVOURS), int(found[1]) // 1024 // MEMORY)) if found else 1


def _kernel(version: str) -> kernels.Kernel | str:
    """The kernel, or why there is none."""
    try:
        return kernels.get(version)
    except kernels.KernelUnavailableError as error:
        _say(version, str(error))
        return str(error)


def _run_flavour(kernel: kernels.Kernel, flavour: str, chosen: list[str]) -> list[Result]:
    """Boot a guest and run the tests in it under one flavour; show all they said, and the console, on failure."""
    name = f"{kernel.version} {flavour}"
    _say(name, f"booting {kernel.release}")
    start = time.monotonic()
    try:
        with Guest(kernel, name=name.replace(" ", "-")) as guest:
            _say(name, f"booted in {time.monotonic() - start:.0f} s")
            results, output = _in_guest(guest, name, flavour, chosen)
            console = guest.console()
    except GuestError as error:
        _say(name, str(error))
        return [Result(kernel.version, flavour, EVERY_TEST, FAILED, str(error).splitlines()[0])]
    if any(result.outcome == FAILED for result in results):
        _say(name, f"not all passed:\n{output}\n==> the guest's kernel said ({guest.log}):\n{console}")
    _say(name, f"{_counts(results)} in {time.monotonic() - start:.0f} s")
    return results


def _say(name: str, text: str) -> None:
    # In one piece: another guest may have something to say too.
    print(f"==> {name}: {text}\n", end="", flush=True)


def _in_guest(guest: Guest, name: str, flavour: str, chosen: list[str]) -> tuple[list[Result], str]:
    """The results, and what was said in the guest."""
    version = name.split()[0]
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= {"AUTOTRACE_HOOKS": flavour, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    python = f"cd {shlex.quote(str(ROOT))} && {shlex.quote(sys.executable)}"
    tried = guest.run(
        f"{python} -m autotrace.cli run --console off --metrics-port 0 --runtime-dir /run/autotrace -- true",
        START_SECONDS,
        {**environment, "AUTOTRACE_TLS": "off"},
    )
    if tried.code:
        said = [line for line in tried.output.splitlines() if line.startswith("Error: ")]
        reason = said[0].removeprefix("Error: ") if said else f"the agent ended with code {tried.code}"
        outcome = UNSUPPORTED if said else FAILED
        return [Result(version, flavour, EVERY_TEST, outcome, reason)], tried.output
    arguments = [
        *("-v", "--tb=short", "--no-header", "--color=no", "--durations=0", "-p", "no:cacheprovider"),
        *("-p", "pytest_timeout", f"--timeout={TEST_SECONDS}", f"--junit-xml={SHARE}/junit.xml", *chosen),
    ]

    def follow(line: str) -> None:
        if ended := ENDED.match(line):
            _say(name, ended[0])

    ran = guest.run(f"{python} -m pytest {shlex.join(arguments)}", FLAVOUR_SECONDS, environment, follow)
    report = guest.share / "junit.xml"
    if not report.exists():
        reason = f"pytest ended with code {ran.code} and no report"
        return [Result(version, flavour, EVERY_TEST, FAILED, reason)], ran.output
    results = [Result(version, flavour, *case) for case in _cases(report)]
    none = [Result(version, flavour, EVERY_TEST, FAILED, "no test was selected")]
    return results or none, ran.output


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
    # A cut name says nothing: rather let a narrow terminal wrap.
    console.width = max(console.width, 30 + 15 * len(columns))
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
