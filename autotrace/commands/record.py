"""`autotrace record`: save what the kernel reports, to be replayed anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from autotrace.commands.options import Verb, config_flags, read_config
from autotrace.commands.preflight import require_privileges, require_selection
from autotrace.config import Group

EXAMPLES = """
sudo autotrace record events.bin --port 8080
sudo autotrace record events.bin -- python app.py
autotrace replay events.bin
"""


@config_flags({Group.SELECTION, Group.CAPTURE, Group.GENERAL})
@click.command(
    cls=Verb, short_help="Save the kernel's events in a file.", examples=EXAMPLES, takes_command=True
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_context
def record(ctx: click.Context, /, file: Path, **_: object) -> None:
    """Watch processes and save the kernel's events in FILE, without emitting spans.

    `autotrace replay FILE` makes the spans from it, without root and on any machine. FILE holds the heads of
    requests and responses, but no query, no body, and of the fields only the values that spans are made of; the
    rest is overwritten. To save events and emit spans at once, use `autotrace run --record FILE`.
    """
    config = read_config(ctx)
    require_selection(config)
    require_privileges()
    only_events = replace(
        config,
        record_path=file,
        json_path=None,
        otlp_traces=False,
        otlp_metrics=False,
        metrics_port=0,
        console="off",
    )
    from autotrace.commands.session import watch

    ctx.exit(watch(only_events))
