"""Where the options come from: flags, environment variables, a YAML file.

Precedence: flag, then `AUTOTRACE_*`, then `OTEL_*`, then the YAML file, then the default. A source that gives
an option replaces what a weaker source gave; lists are not merged.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotrace.config import Config, Option, options
from autotrace.errors import USAGE, AutotraceError

if TYPE_CHECKING:
    import yaml


def load(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None,
    warn: Callable[[str], None],
) -> Config:
    """Join the sources into one Config.

    `flags` holds only what was given on the command line: field name to text, to a tuple of texts, or to a
    bool. An `OTEL_*` variable with a value that cannot be used is passed to `warn` and ignored, as
    OpenTelemetry asks (specification/configuration/sdk-environment-variables.md); any other source with one
    raises AutotraceError with exit code 2.
    """
    layers = [
        _from_file(file) if file else {},
        _from_opentelemetry(environment, warn),
        _from_environment(environment),
        _from_flags(flags),
    ]
    values: dict[str, Any] = {}
    for layer in layers:
        if layer.get("otlp_endpoint"):
            values.update(otlp_traces=True, otlp_metrics=True)
        values.update(layer)
    return Config(**values)


def _from_flags(flags: Mapping[str, object]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, option, _ in options():
        given = flags.get(name)
        if isinstance(given, bool):
            values[name] = given
        elif given is not None:
            texts = [str(each) for each in given] if isinstance(given, tuple) else [str(given)]
            values[name] = _from_text(option, option.flag, texts)
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """What the `AUTOTRACE_*` variables set. A list is split at its commas; an empty variable sets nothing."""
    values: dict[str, Any] = {}
    for name, option, _ in options():
        if text := environment.get(option.variable):
            texts = text.split(",") if option.many else [text]
            values[name] = _from_text(option, option.variable, texts)
    return values


def _from_text(option: Option, source: str, texts: list[str]) -> object:
    """Read an option from the texts of a flag or an environment variable."""
    results = []
    for text in texts:
        try:
            results.append(option.kind.check(option.kind.parse(text)))
        except (ValueError, OverflowError):
            raise AutotraceError(
                f"{source} is {text!r}, but it must be {option.kind.expected}.", exit_code=USAGE
            ) from None
    return tuple(results) if option.many else results[0]


# --- the YAML file ------------------------------------------------------------------------------------------


def _from_file(path: Path) -> dict[str, Any]:
    document = _read_yaml(path)
    by_key = {option.key: (name, option) for name, option, _ in options()}
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in by_key:
            close = difflib.get_close_matches(str(key), by_key, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "`autotrace run --help` lists the options."
            raise AutotraceError(f"{path}: {key!r} is not an option; {hint}", exit_code=USAGE)
        name, option = by_key[key]
        values[name] = _from_yaml(path, option, value)
    return values


def _from_yaml(path: Path, option: Option, value: object) -> object:
    if not option.many:
        items = [value]
    elif isinstance(value, list):
        items = value
    elif isinstance(value, dict):
        items = list(value.items())
    else:
        items = [value]
    results = []
    for item in items:
        typed = option.kind.parse(item) if option.key == "service-name" and isinstance(item, str) else item
        try:
            results.append(option.kind.check(typed))
        except (ValueError, OverflowError):
            raise AutotraceError(
                f"{path}: {option.key!r} is {item!r} ({_yaml_type(item)}), but it must be "
                f"{option.kind.expected}.",
                exit_code=USAGE,
            ) from None
    return tuple(results) if option.many else results[0]


def _yaml_type(value: object) -> str:
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a map",
    }
    return names.get(type(value), "nothing" if value is None else f"a {type(value).__name__}")


def _read_yaml(path: Path) -> dict[object, object]:
    import yaml

    try:
        with path.open("rb") as file:
            document = yaml.load(file, _strict_loader())
    except OSError as error:
        raise AutotraceError(
            f"Cannot read the configuration file {path}: {error.strerror}; check the path given to --config.",
            exit_code=USAGE,
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise AutotraceError(f"{path} is not valid YAML: {_problem(error)}.", exit_code=USAGE) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise AutotraceError(
            f"{path} holds {_yaml_type(document)}, but it must be a map of options, such as `port: 8080`.",
            exit_code=USAGE,
        )
    return document


def _problem(error: Exception) -> str:
    """Say what is wrong with some YAML, and where, in one line."""
    problem = getattr(error, "problem", None) or (str(error).splitlines() or ["it cannot be read"])[0]
    mark = getattr(error, "problem_mark", None)
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark else problem


def _strict_loader() -> type[yaml.SafeLoader]:
    """A YAML loader that refuses a key given twice, which YAML forbids and PyYAML lets pass."""
    import yaml

    class StrictLoader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value!r} is given twice; use a list", key.start_mark
                    )
                if isinstance(key, yaml.ScalarNode):
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    return StrictLoader


# --- OpenTelemetry's environment variables ------------------------------------------------------------------


def _from_opentelemetry(environment: Mapping[str, str], warn: Callable[[str], None]) -> dict[str, Any]:
    """What the `OTEL_*` variables set. An empty variable is as good as none.

    The variables that describe the collector are read by `autotrace.export`; here it is only seen whether
    there is one, for each signal.
    """
    values: dict[str, Any] = {}
    for name, option, _ in options():
        if option.otel and (text := environment.get(option.otel)):
            text = "warning" if (option.otel, text.lower()) == ("OTEL_LOG_LEVEL", "warn") else text
            try:
                values[name] = _from_text(option, option.otel, [text])
            except AutotraceError as error:
                warn(f"Ignored: {error}")
    for signal in ("traces", "metrics"):
        variables = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
        if any(environment.get(variable) for variable in variables):
            values[f"otlp_{signal}"] = True
    if traces := _exporters("OTEL_TRACES_EXPORTER", {"otlp", "console", "none"}, environment, warn):
        values["otlp_traces"] = "otlp" in traces
        values["console"] = "on" if "console" in traces else "off"
    if metrics := _exporters("OTEL_METRICS_EXPORTER", {"otlp", "prometheus", "none"}, environment, warn):
        values["otlp_metrics"] = "otlp" in metrics
        if "prometheus" not in metrics:
            values["metrics_port"] = 0
    return values


def _exporters(
    variable: str, known: set[str], environment: Mapping[str, str], warn: Callable[[str], None]
) -> set[str]:
    """Read a list of exporters; empty if the variable is not set or names one that is not known."""
    names = {name.strip() for name in environment.get(variable, "").split(",")} - {""}
    if unknown := names - known:
        warn(
            f"Ignored: {variable} names {', '.join(sorted(unknown))}, but autotrace knows only "
            f"{', '.join(sorted(known))}."
        )
        return set()
    return names
