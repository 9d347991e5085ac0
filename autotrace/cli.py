"""The command line: a group of the verbs in `autotrace.commands`."""

from __future__ import annotations

from typing import Any

import click

from autotrace import __version__
from autotrace.commands.doctor import doctor
from autotrace.commands.explain import explain
from autotrace.commands.record import record
from autotrace.commands.replay import replay
from autotrace.commands.run import run
from autotrace.commands.status import status
from autotrace.errors import AutotraceError


class _Group(click.Group):
    """Shows an AutotraceError as its one sentence, after its notes, and ends with its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AutotraceError as error:
            for line in (*getattr(error, "__notes__", ()), f"Error: {error}"):
                click.echo(line, err=True)
            ctx.exit(error.exit_code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="autotrace")
def main() -> None:
    """Distributed traces and RED metrics of HTTP services, without touching them.

    \b
    sudo autotrace doctor                 what this kernel allows
    sudo autotrace run -- python app.py   start a program and trace it
    sudo autotrace run --port 8080        trace what already listens there
    sudo autotrace status                 what a running agent has seen, emitted and dropped
    sudo autotrace explain PID            why a process shows the spans it shows, or none

    `autotrace VERB --help` explains each.
    """


for _verb in (run, record, replay, status, doctor, explain):
    main.add_command(_verb)


if __name__ == "__main__":
    main()
