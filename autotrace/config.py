"""Every option of autotrace, declared once: flags, YAML keys and environment variables come from `Config`.
`autotrace.config_sources` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

KIB = 1024
MIB = 1024 * KIB


class Kind(NamedTuple):
    """How the values of an option are read.

    `expected` ends the sentence "it must be ...". `parse` reads text (a flag, an environment variable);
    `check` takes a typed value (from YAML, or from `parse`) and gives what is stored. Both raise ValueError.
    """

    metavar: str
    expected: str
    parse: Callable[[str], object]
    check: Callable[[object], object]


def _checked(ok: bool, value: Any) -> Any:
    if not ok:
        raise ValueError
    return value


def _whole(metavar: str, low: int, high: int) -> Kind:
    def check(value: object) -> object:
        return _checked(type(value) is int and low <= value <= high, value)

    return Kind(metavar, f"a whole number from {low} to {high}", int, check)


def _size(low: int, high: int, *, power_of_two: bool = False) -> Kind:
    units = {"KiB": KIB, "MiB": MIB, "K": KIB, "M": MIB}

    def parse(text: str) -> object:
        for unit, factor in units.items():
            if text.endswith(unit):
                return int(text.removesuffix(unit)) * factor
        return int(text)

    def check(value: object) -> object:
        number = parse(value) if isinstance(value, str) else value
        ok = type(number) is int and low <= number <= high
        return _checked(ok and not (power_of_two and number & (number - 1)), number)  # type: ignore[operator]

    expected = f"a size from {format_size(low)} to {format_size(high)}"
    return Kind("SIZE", expected + (" that is a power of two" if power_of_two else ""), parse, check)


def format_size(size: int) -> str:
    """Write a size in bytes the way the options read it (8388608 is 8MiB)."""
    for factor, unit in ((MIB, "MiB"), (KIB, "KiB")):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _seconds(low: float, high: float) -> Kind:
    def check(value: object) -> object:
        ok = type(value) in (int, float) and low <= value <= high  # type: ignore[operator]
        return float(_checked(ok, value))

    return Kind("SECONDS", f"a number of seconds from {low:g} to {high:g}", float, check)


def _choice(*values: str) -> Kind:
    def check(value: object) -> object:
        if isinstance(value, bool):  # YAML 1.1 reads a bare on or off as a boolean
            value = "on" if value else "off"
        return _checked(value in values, value)

    return Kind("|".join(values), "one of " + ", ".join(values), str, check)


def _text(metavar: str, expected: str) -> Kind:
    return Kind(metavar, expected, str, lambda value: _checked(isinstance(value, str) and value != "", value))


def _path(metavar: str) -> Kind:
    text = _text(metavar, "a path")
    return text._replace(check=lambda value: Path(str(text.check(value))))


def _url() -> Kind:
    def check(value: object) -> object:
        if not isinstance(value, str):
            raise ValueError
        parts = urlsplit(value if "://" in value else f"http://{value}")
        return _checked(parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0, value)

    return Kind("URL", "a URL such as http://localhost:4317", str, check)


def _switch() -> Kind:
    words = {"true": True, "1": True, "false": False, "0": False}

    def parse(text: str) -> object:
        return words.get(text.lower())

    return Kind("", "true or false", parse, lambda value: _checked(isinstance(value, bool), value))


def _service_name() -> Kind:
    def parse(text: str) -> object:
        glob, _, name = text.rpartition("=")
        return glob, name

    def check(value: object) -> object:
        return _checked(
            isinstance(value, tuple) and all(isinstance(part, str) and part for part in value), value
        )

    return Kind("GLOB=NAME", "GLOB=NAME, such as */nginx=edge", parse, check)


class Group(Enum):
    """The headings under which `--help` lists the options."""

    SELECTION = "What to watch"
    CAPTURE = "Capture"
    LIMITS = "Limits"
    EXPORT = "Where spans go"
    METRICS = "Prometheus endpoint"
    GENERAL = "General"


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of an option besides its value. `key` is the YAML key and the flag without its dashes."""

    key: str
    kind: Kind
    group: Group
    help: str
    many: bool = False
    otel: str = ""
    """The OpenTelemetry environment variable that also sets it."""

    @property
    def flag(self) -> str:
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        return "AUTOTRACE_" + self.key.upper().replace("-", "_")


def _about(*arguments: Any, **more: Any) -> dict[str, Option]:
    return {"option": Option(*arguments, **more)}


_PROTOCOLS = ("grpc", "http/protobuf")
_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Config:
    """The options of a run. Sizes are bytes, `exchange_timeout` is seconds.

    Selection rules combine: a process is watched if any of `pids`, `exe_globs`, `ports`, `everything` or
    `command` names it. `service_names` are (glob, name), the first that matches wins. `otlp_traces`
    and `otlp_metrics` say whether OTLP is used; `otlp_endpoint` and `otlp_protocol` are "" to leave the
    choice to OpenTelemetry's variables and defaults. `metrics_port` is 0 for no /metrics.
    """

    pids: tuple[int, ...] = field(
        default=(),
        metadata=_about(
            "pid",
            _whole("PID", 1, 2**22),
            Group.SELECTION,
            "Watch this process and the children it makes.",
            many=True,
        ),
    )
    exe_globs: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            "exe",
            _text("GLOB", "a glob, such as nginx or /opt/*/bin/*"),
            Group.SELECTION,
            "Watch executables, started now or later; a GLOB without a slash is matched with the name alone.",
            many=True,
        ),
    )
    ports: tuple[int, ...] = field(
        default=(),
        metadata=_about(
            "port",
            _whole("PORT", 1, 65535),
            Group.SELECTION,
            "Watch the processes that listen on this TCP port.",
            many=True,
        ),
    )
    everything: bool = field(
        default=False,
        metadata=_about(
            "all",
            _switch(),
            Group.SELECTION,
            "Watch every process of this host but autotrace.",
        ),
    )
    command: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            "command",
            _text("CMD", "a list of words, the program first"),
            Group.SELECTION,
            "Start this program and watch it from its first instruction, with its children.",
            many=True,
        ),
    )
    user: str = field(
        default="",
        metadata=_about(
            "user",
            _text("NAME", "a user's name"),
            Group.SELECTION,
            "Start CMD as this user; without it, as the user autotrace runs as (root under sudo).",
        ),
    )
    service_names: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=_about(
            "service-name",
            _service_name(),
            Group.SELECTION,
            "Report processes whose executable matches GLOB as service NAME; the first that matches wins.",
            many=True,
        ),
    )
    hooks: str = field(
        default="auto",
        metadata=_about(
            "hooks",
            _choice("auto", "fentry", "kprobe", "tracepoint"),
            Group.CAPTURE,
            "How to hook the sockets; auto takes the first of the others that this kernel allows.",
        ),
    )
    tls: str = field(
        default="*",
        metadata=_about(
            "tls",
            _text("GLOB", "a glob for paths of TLS libraries, such as */libssl.so.3, or off"),
            Group.CAPTURE,
            "Read the plaintext of TLS in these libraries and programs only, as watched processes map them; "
            "off for none.",
        ),
    )
    runtime_probes: str = field(
        default="*",
        metadata=_about(
            "runtime-probes",
            _text("GLOB", "a glob for paths of programs, such as /opt/shop/*, or off"),
            Group.CAPTURE,
            "Ask the runtimes of these programs only, by probes, which task works for which request, and what "
            "requests are of on HTTP/2 connections older than the agent; off for none.",
        ),
    )
    head_size: int = field(
        default=4 * KIB,
        metadata=_about(
            "head-size",
            _size(256, 8 * KIB),
            Group.CAPTURE,
            "Read at most this much of the head of each request and response; what follows is only counted.",
        ),
    )
    ring_size: int = field(
        default=8 * MIB,
        metadata=_about(
            "ring-size",
            _size(64 * KIB, 1024 * MIB, power_of_two=True),
            Group.CAPTURE,
            "Memory between the kernel and autotrace. Raise it if `autotrace status` shows lost events.",
        ),
    )
    max_connections: int = field(
        default=65536,
        metadata=_about(
            "max-connections",
            _whole("COUNT", 16, 2**24),
            Group.CAPTURE,
            "Follow at most this many connections at once; what is beyond is counted in the ledger.",
        ),
    )
    exchange_timeout: float = field(
        default=300.0,
        metadata=_about(
            "exchange-timeout",
            _seconds(1, 86400),
            Group.LIMITS,
            "Report a request that has no response after this long as an error.",
        ),
    )
    route_limit: int = field(
        default=200,
        metadata=_about(
            "route-limit",
            _whole("COUNT", 1, 100_000),
            Group.LIMITS,
            "Keep at most this many routes (http.route) apart per service.",
        ),
    )
    series_limit: int = field(
        default=2000,
        metadata=_about(
            "series-limit",
            _whole("COUNT", 1, 1_000_000),
            Group.LIMITS,
            "Keep at most this many metric series per service.",
        ),
    )
    otlp_endpoint: str = field(
        default="",
        metadata=_about(
            "otlp",
            _url(),
            Group.EXPORT,
            "Send spans and metrics by OTLP to this collector.",
        ),
    )
    otlp_protocol: str = field(
        default="",
        metadata=_about(
            "otlp-protocol",
            _choice(*_PROTOCOLS),
            Group.EXPORT,
            "The OTLP transport. Without it: OTEL_EXPORTER_OTLP_PROTOCOL, or what the URL's port suggests.",
        ),
    )
    otlp_traces: bool = field(
        default=False,
        metadata=_about(
            "otlp-traces", _switch(), Group.EXPORT, "Send spans by OTLP; on where a collector is given."
        ),
    )
    otlp_metrics: bool = field(
        default=False,
        metadata=_about(
            "otlp-metrics", _switch(), Group.EXPORT, "Send metrics by OTLP; on where a collector is given."
        ),
    )
    json_path: Path | None = field(
        default=None,
        metadata=_about(
            "json",
            _path("FILE"),
            Group.EXPORT,
            "Append spans to this file in the OTLP file format, a JSON line per batch; - is standard output.",
        ),
    )
    record_path: Path | None = field(
        default=None,
        metadata=_about(
            "record",
            _path("FILE"),
            Group.EXPORT,
            "Also save the kernel's events in this file, for `autotrace replay`.",
        ),
    )
    console: str = field(
        default="auto",
        metadata=_about(
            "console",
            _choice("auto", "on", "off"),
            Group.EXPORT,
            "Print traces on standard output; auto does so only on a terminal.",
        ),
    )
    metrics_host: str = field(
        default="localhost",
        metadata=_about(
            "metrics-host",
            _text("HOST", "a host name or an address"),
            Group.METRICS,
            "Serve /metrics on this address; 0.0.0.0 for all.",
            otel="OTEL_EXPORTER_PROMETHEUS_HOST",
        ),
    )
    metrics_port: int = field(
        default=9464,
        metadata=_about(
            "metrics-port",
            _whole("PORT", 0, 65535),
            Group.METRICS,
            "Serve /metrics on this port; 0 turns it off.",
            otel="OTEL_EXPORTER_PROMETHEUS_PORT",
        ),
    )
    runtime_dir: Path | None = field(
        default=None,
        metadata=_about(
            "runtime-dir",
            _path("DIR"),
            Group.GENERAL,
            "Where agents put the socket that `autotrace status` asks. Without it: /run/autotrace for "
            "root, else autotrace in $XDG_RUNTIME_DIR.",
        ),
    )
    cache_dir: Path | None = field(
        default=None,
        metadata=_about(
            "cache-dir",
            _path("DIR"),
            Group.GENERAL,
            "Where agents remember what they found in programs and libraries. Without it: "
            "/var/cache/autotrace for root, else autotrace in $XDG_CACHE_HOME.",
        ),
    )
    log_level: str = field(
        default="info",
        metadata=_about(
            "log-level",
            _choice(*_LEVELS),
            Group.GENERAL,
            "How much to say on standard error.",
            otel="OTEL_LOG_LEVEL",
        ),
    )

    @property
    def selects(self) -> bool:
        """Whether any rule says what to watch."""
        return bool(self.pids or self.exe_globs or self.ports or self.everything or self.command)


def options() -> Iterator[tuple[str, Option, object]]:
    """Each option of `Config`: its field's name, what it is, its default."""
    for each in fields(Config):
        yield each.name, each.metadata["option"], each.default
