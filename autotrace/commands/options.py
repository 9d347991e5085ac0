"""Flags made from `Config`, and the command class that shows and reads them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import click

from autotrace.config import Config, Group, Option, format_size, options

_WITHOUT_FLAG = "command"
"""The option that is given as the words after `--`."""


class Verb(click.Command):
    """A command whose flags stand under headings, whose examples keep their lines.

    With `takes_command`, everything after a `--` is a program to start and its arguments; it becomes the
    parameter `command`.
    """

    def __init__(self, *arguments: Any, examples: str, takes_command: bool = False, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.examples = examples
        self.takes_command = takes_command
        self.allow_extra_args = takes_command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        command: Sequence[str] = ()
        if self.takes_command and "--" in args:
            cut = args.index("--")
            args, command = args[:cut], args[cut + 1 :]
            if not command:
                raise click.UsageError("No program follows `--`; name one, such as `-- python app.py`.", ctx)
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            raise click.UsageError(f"A program to start goes after `--`: `-- {' '.join(rest)}`.", ctx)
        if self.takes_command:
            ctx.params[_WITHOUT_FLAG] = tuple(command)
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return super().collect_usage_pieces(ctx) + (["[-- CMD...]"] if self.takes_command else [])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups = {name: option.group.value for name, option, _ in options()}
        sections: dict[str, list[tuple[str, str]]] = {group.value: [] for group in Group}
        if self.takes_command:
            about = next(option.help for _, option, _ in options() if option.key == _WITHOUT_FLAG)
            sections[Group.SELECTION.value].append(("-- CMD...", about))
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                sections[groups.get(str(parameter.name), Group.GENERAL.value)].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            formatter.write("".join(f"  {line}\n" for line in self.examples.strip().splitlines()))
        super().format_epilog(ctx, formatter)


def config_flags(
    groups: Collection[Group] = tuple(Group), *, without: Collection[str] = ()
) -> Callable[[click.Command], click.Command]:
    """Give a command `--config FILE` and the flags of these groups, but for the fields in `without`."""

    def add(command: click.Command) -> click.Command:
        for name, option, default in options():
            if option.group in groups and option.key != _WITHOUT_FLAG and name not in without:
                command.params.append(_flag(name, option, default))
        command.params.append(
            click.Option(
                ["--config"],
                metavar="FILE",
                envvar="AUTOTRACE_CONFIG",
                help="Read options from this YAML file; a key is a flag without its dashes (`port: 8080`).",
            )
        )
        return command

    return add


def _flag(name: str, option: Option, default: object) -> click.Option:
    about = f"{option.help} Repeatable." if option.many else option.help
    about += _default_text(option, default)
    if isinstance(default, bool):
        spelling = f"{option.flag}/--no-{option.key}" if option.group is Group.EXPORT else option.flag
        return click.Option([name, spelling], is_flag=True, default=None, help=about)
    return click.Option(
        [name, option.flag], metavar=option.kind.metavar, multiple=option.many, type=str, help=about
    )


def _default_text(option: Option, default: object) -> str:
    match default:
        case bool() | "" | () | None:
            return ""
        case int() if option.kind.metavar == "SIZE":
            return f" [default: {format_size(default)}]"
        case float():
            return f" [default: {default:g}]"
    return f" [default: {default}]"


def read_config(ctx: click.Context) -> Config:
    """The configuration of this call: its flags, the environment, the file that `--config` names."""
    from autotrace.config_sources import load

    names = {name for name, _, _ in options()}
    flags = {name: value for name, value in ctx.params.items() if name in names and value not in (None, ())}
    path = ctx.params.get("config")
    return load(flags, os.environ, Path(path) if path else None, lambda text: click.echo(text, err=True))
