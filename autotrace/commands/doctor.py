"""`autotrace doctor`: what this host allows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from autotrace.commands.options import Verb
from autotrace.errors import FAILURE

if TYPE_CHECKING:
    from autotrace.kernel.features import Feature

EXAMPLES = """
sudo autotrace doctor
sudo autotrace doctor --json
"""


@click.command(cls=Verb, short_help="Say what this kernel allows, what is missing.", examples=EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Try what autotrace needs from this kernel, and say what works, what is missing and what to do.

    The exit code is 1 if something is missing that autotrace cannot do without.
    """
    from autotrace.kernel.features import probe

    features = probe()
    if as_json:
        keys = ("name", "ok", "needed", "detail", "advice")
        click.echo(json.dumps([{key: getattr(each, key) for key in keys} for each in features], indent=2))
    else:
        _print(features)
    missing = [each.name for each in features if each.needed and not each.ok]
    if missing:
        click.echo(f"autotrace cannot run here: {', '.join(missing)} missing.", err=True)
        ctx.exit(FAILURE)


def _print(features: list[Feature]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "feature", "what was found", "what to do", box=None)
    for each in features:
        mark = ("ok", "green") if each.ok else ("missing", "red") if each.needed else ("no", "yellow")
        table.add_row(Text(*mark), Text(each.name), Text(each.detail), Text("" if each.ok else each.advice))
    Console().print(table)
