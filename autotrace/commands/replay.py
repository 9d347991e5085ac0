"""`autotrace replay`: the same spans again, from a recorded file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from autotrace.commands.options import Verb, config_flags, read_config
from autotrace.config import Group

EXAMPLES = """
autotrace replay events.bin
autotrace replay events.bin --json spans.jsonl --console off
autotrace replay events.bin --otlp http://localhost:4317
"""


@config_flags(
    {Group.LIMITS, Group.EXPORT, Group.GENERAL}, without={"record_path", "runtime_dir", "cache_dir"}
)
@click.command(cls=Verb, short_help="Make spans from a recorded file, anywhere.", examples=EXAMPLES)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_context
def replay(ctx: click.Context, /, file: Path, **_: object) -> None:
    """Make spans from the events in FILE, which `autotrace record` saved.

    It needs neither root nor eBPF, and gives the same spans each time. At the end it prints the ledger.
    """
    config = replace(read_config(ctx), metrics_port=0, record_path=None)
    from autotrace.agent import replay as replay_events
    from autotrace.commands.session import set_up_logging
    from autotrace.ledger import render_snapshot

    logger = set_up_logging(config.log_level)
    click.echo(render_snapshot(replay_events(config, file, logger.info)), err=True)
