"""`autotrace status`: the books of a running agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from autotrace import control
from autotrace.commands.options import Verb
from autotrace.errors import USAGE, AutotraceError

EXAMPLES = """
sudo autotrace status
sudo autotrace status --agent 4242 --json
"""


@click.command(cls=Verb, short_help="Show the books of a running agent.", examples=EXAMPLES)
@click.option(
    "--agent", type=click.IntRange(min=1), metavar="PID", help="Ask this agent; needed if several run."
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.option(
    "--runtime-dir",
    type=click.Path(path_type=Path),
    envvar="AUTOTRACE_RUNTIME_DIR",
    metavar="DIR",
    help="Where running agents put their sockets.",
)
def status(agent: int | None, as_json: bool, runtime_dir: Path | None) -> None:
    """Show what a running agent has seen, emitted and dropped, whom it watches and by which hooks."""
    directory = control.runtime_dir(runtime_dir)
    path = control.socket_path(directory, agent or _only_agent(directory))
    answer = control.query(path, "status")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        _print(answer)


def _only_agent(directory: Path) -> int:
    agents = control.running_agents(directory)
    if not agents:
        raise AutotraceError(
            f"No agent is running (none listens in {directory}); start one with `autotrace run`."
        )
    if len(agents) > 1:
        listed = ", ".join(map(str, agents))
        raise AutotraceError(
            f"Several agents are running ({listed}); choose one with --agent PID.", exit_code=USAGE
        )
    return agents[0]


def _print(answer: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from autotrace.ledger import render_snapshot

    console = Console(highlight=False)
    memory = answer["memory_bytes"] / 2**20
    console.print(
        f"autotrace {answer['version']}, pid {answer['pid']}, up {answer['uptime_s']:.0f} s, {memory:.0f} MiB"
        f", hooks: {answer['hooks']}",
        markup=False,
    )
    console.print(render_snapshot(answer["ledger"]), markup=False)
    table = Table("pid", "service", "runtime", "executable", box=None)
    for process in answer["processes"]:
        table.add_row(*(Text(str(process[key])) for key in ("pid", "service", "runtime", "executable")))
    console.print(table if answer["processes"] else "No process is watched yet.")
