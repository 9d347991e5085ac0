"""`autotrace explain`: why a process shows the spans it shows, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autotrace.commands.options import Verb
from autotrace.commands.preflight import require_process
from autotrace.control import query, running_agents, runtime_dir, socket_path
from autotrace.errors import AutotraceError

if TYPE_CHECKING:
    from autotrace.discovery.explain import Finding

EXAMPLES = """
sudo autotrace explain 4242
sudo autotrace explain 4242 --json
"""


@click.command(cls=Verb, short_help="Say what can be seen of a process, and why not.", examples=EXAMPLES)
@click.argument("pid", type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--runtime-dir",
    type=click.Path(path_type=Path),
    envvar="AUTOTRACE_RUNTIME_DIR",
    metavar="DIR",
    help="Where running agents put their sockets.",
)
def explain(pid: int, as_json: bool, runtime_dir: Path | None) -> None:
    """Say what autotrace makes of the process PID: its runtime, its name, what can be seen of it and why not.

    Running agents are asked whether they watch it. The process is only looked at, never touched.
    """
    require_process(pid)
    from autotrace.discovery.explain import explain as findings_of
    from autotrace.discovery.processes import Describer
    from autotrace.probes import Manifests

    findings = findings_of(pid, Describer(Manifests.load()))
    if findings is None:
        raise AutotraceError(f"Process {pid} ended while it was looked at; give the pid of one that runs.")
    agents = _watching_agents(pid, runtime_dir)
    if as_json:
        listed = [{"topic": each.topic, "state": each.state.value, "text": each.text} for each in findings]
        click.echo(json.dumps({"pid": pid, "watched_by": agents, "findings": listed}, indent=2))
    else:
        _print(findings, agents)


def _watching_agents(pid: int, setting: Path | None) -> list[int]:
    """The pids of the running agents that watch `pid`. One that cannot be asked is named and left out."""
    directory = runtime_dir(setting)
    watching = []
    for agent in running_agents(directory):
        try:
            if query(socket_path(directory, agent), "explain", pid=pid)["watched"]:
                watching.append(agent)
        except AutotraceError as error:
            click.echo(str(error), err=True)
    return watching


def _print(findings: list[Finding], agents: list[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    by = f"by the agent with pid {', '.join(map(str, agents))}" if agents else "no running agent watches it"
    table.add_row("watched", "yes" if agents else "no", by)
    for each in findings:
        state = "" if each.state.value == "info" else each.state.value
        table.add_row(Text(each.topic), Text(state), Text(each.text))
    Console().print(table)
