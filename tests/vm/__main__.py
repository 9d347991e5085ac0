"""`python -m tests.vm`: run the end-to-end tests on other kernels, and show kernel x flavour x test."""

from __future__ import annotations

import sys

import click

from tests.vm import matrix
from tests.vm.kernels import SUITES


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--kernel",
    "versions",
    multiple=True,
    type=click.Choice(list(SUITES)),
    help="Only this kernel; repeatable.",
)
@click.option(
    "--flavour",
    "flavours",
    multiple=True,
    type=click.Choice(matrix.FLAVOURS),
    help="Only this flavour of the socket hooks; repeatable.",
)
@click.option(
    "--tests",
    default="core",
    show_default=True,
    help="core, all, or what pytest is to run, such as 'tests/e2e/test_threads.py -k node'.",
)
def main(versions: tuple[str, ...], flavours: tuple[str, ...], tests: str) -> None:
    """Boot Debian's kernels in QEMU and run the end-to-end tests on each, under each flavour of the hooks.

    Kernels are fetched once, into build/vm. The results are printed as a table and written to
    build/vmtest.json. The exit code is 1 if a test failed. A flavour that a kernel does not support, or a kernel
    that the mirror does not have, is listed and is no failure.
    """
    results = matrix.run(versions or tuple(SUITES), flavours or matrix.FLAVOURS, matrix.selection(tests))
    matrix.write(results)
    matrix.show(results)
    sys.exit(any(result.outcome == matrix.FAILED for result in results))


main()
