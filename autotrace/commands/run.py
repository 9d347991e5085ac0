"""`autotrace run`: watch processes, emit spans and metrics."""

from __future__ import annotations

import click

from autotrace.commands.options import Verb, config_flags, read_config
from autotrace.commands.preflight import require_privileges, require_selection

EXAMPLES = """
sudo autotrace run -- python app.py               start a program and trace it and its children
sudo autotrace run --port 8080                    trace what listens on port 8080
sudo autotrace run --exe '*/nginx' --exe '*/node' trace programs by the path of their executable
sudo autotrace run --pid 4242 --json spans.jsonl  trace one process, keep the spans in a file
sudo autotrace run --all --otlp http://localhost:4317 --console off
sudo autotrace run --config /etc/autotrace.yaml   the same options, kebab-case, as YAML
"""


@config_flags()
@click.command(
    cls=Verb, short_help="Watch processes; emit spans and metrics.", examples=EXAMPLES, takes_command=True
)
@click.pass_context
def run(ctx: click.Context, /, **_: object) -> None:
    """Watch processes and turn their HTTP traffic into linked spans and metrics.

    Selection rules combine: a process is watched if any of them names it. Nothing in a watched process is
    changed. Ctrl-C detaches every probe, sends what is left and prints the ledger; a second one quits at
    once.

    With a program after `--`, signals sent to autotrace are passed on to it, and autotrace ends when it ends,
    with its exit code (128 + n if signal n ended it, 127 if it is not found, 126 if it cannot be executed).
    Else the exit code is 0, 1 for a failure, 2 for a bad option.

    Every option can also be set in the YAML file, or as an environment variable (AUTOTRACE_HEAD_SIZE for
    --head-size). OpenTelemetry's variables are honoured too: OTEL_EXPORTER_OTLP_*, OTEL_TRACES_EXPORTER,
    OTEL_METRICS_EXPORTER, OTEL_EXPORTER_PROMETHEUS_HOST and _PORT, OTEL_LOG_LEVEL. A flag wins over
    AUTOTRACE_*, that over OTEL_*, that over the file. sudo hides the environment: use `sudo -E`, or name the
    variables.
    """
    config = read_config(ctx)
    require_selection(config)
    require_privileges()
    from autotrace.commands.session import watch

    ctx.exit(watch(config))
