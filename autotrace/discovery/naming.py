"""The name of a program: what a person would call the service, from how it was started."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from autotrace.probes import Interpreter, Launcher

_APPLICATION = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_][\w.]*(\(.*\))?")
"""`module:attribute`, as WSGI and ASGI servers name an application; `localhost:8000` is none."""


def executable_matches(pattern: str, executable: str) -> bool:
    """Tell whether a shell pattern takes an executable: its whole path if the pattern has a slash,
    else its base name."""
    return fnmatchcase(executable if "/" in pattern else PurePosixPath(executable).name, pattern)


def program_name(
    interpreter: Interpreter, arguments: Sequence[str], environment: Mapping[str, str], directory: str
) -> str:
    """Name the program that an interpreter runs; "" if the command line does not tell.

    `directory` is the working directory of the process, for relative paths.
    """
    if not arguments:
        return ""
    for title in interpreter.titles:
        found = re.search(title, arguments[0])
        if found and found[1]:
            return found[1]
    position = _find_program(interpreter, arguments)
    if position is None:
        return ""
    program, rest = position
    path = PurePosixPath(program)
    for launcher in interpreter.launchers:
        if path.name in launcher.scripts:
            return _application(launcher, rest, environment) or path.name
    name = _strip_suffix(path.name, interpreter.suffixes)
    if name in interpreter.generic:
        return PurePosixPath(directory, path).parent.name or name
    return name


def _find_program(interpreter: Interpreter, arguments: Sequence[str]) -> tuple[str, Sequence[str]] | None:
    """The script, module or archive on a command line and the arguments after it."""
    index = 1
    while index < len(arguments):
        argument = arguments[index]
        option, value = _split(interpreter, argument)
        if option in interpreter.code_options:
            return None
        if option in interpreter.name_options or option in interpreter.value_options:
            if not value:
                index += 1
                value = arguments[index] if index < len(arguments) else ""
            if option in interpreter.name_options:
                return (value, arguments[index + 1 :]) if value else None
        elif argument == "-":
            return None  # the program comes from standard input
        elif not argument.startswith("-"):
            return argument, arguments[index + 1 :]
        index += 1
    return None


def _split(interpreter: Interpreter, argument: str) -> tuple[str, str]:
    """Split an option from a value joined to it: `--app=shop`, `-mshop`; `-um` counts as its last option."""
    if argument.startswith("--"):
        option, _, value = argument.partition("=")
        return option, value
    if not interpreter.clustered or not argument.startswith("-"):
        return argument, ""
    for at in range(1, len(argument)):
        option = f"-{argument[at]}"
        if option in (*interpreter.name_options, *interpreter.value_options, *interpreter.code_options):
            return option, argument[at + 1 :]
    return argument, ""


def _application(launcher: Launcher, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a launcher was told to run, without its attribute and without `.py`."""
    for index, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        if option in launcher.options:
            value = value or "".join(arguments[index + 1 : index + 2])
            return _bare(value)
        if _APPLICATION.fullmatch(argument):
            return _bare(argument)
    return _bare(environment.get(launcher.environment, ""))


def _bare(application: str) -> str:
    return PurePosixPath(application.partition(":")[0]).name.removesuffix(".py")


def _strip_suffix(name: str, suffixes: Sequence[str]) -> str:
    for suffix in suffixes:
        if name.endswith(suffix) and name != suffix:
            return name[: -len(suffix)]
    return name
