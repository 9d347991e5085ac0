"""Traces as trees and RED metrics as a table, for a person at a terminal.

`rich` is imported when something is first drawn: an agent without a console never loads it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from autotrace.export.queue import Outcome, Result
from autotrace.model import FINE_STEPS_PER_OCTAVE, HistogramPoint, RedSnapshot, Role, Span

if TYPE_CHECKING:
    from rich.text import Text

DEFAULT_WIDTH = 100

_BAR_WIDTH = 18
_LINK_WIDTH = 9
_DEEPEST_INDENT = 12
_SERVICE_WIDTH = 24
_RED_FIGURES = " {:>9} {:>8} {:>7} {:>8} {:>8} {:>8}"
_RED_TITLES = ("requests", "per s", "errors", "p50", "p95", "p99")
_SERVICE_STYLES = (
    "cyan",
    "green",
    "magenta",
    "blue",
    "yellow",
    "bright_cyan",
    "bright_green",
    "bright_magenta",
)


class _Glyphs(NamedTuple):
    branch: str
    last: str
    pass_by: str
    gap: str
    bar: str
    cut: str
    micro: str
    dot: str
    rule: str


_UNICODE = _Glyphs("├─ ", "╰─ ", "│  ", "   ", "━", "…", "µs", "·", "─")
_ASCII = _Glyphs("|- ", "`- ", "|  ", "   ", "=", "~", "us", "-", "-")


class ConsoleExporter:
    """Prints each trace as a tree once nothing was added to it for `quiet` seconds; feed it through a queue.

    At most `max_spans` spans are held: over that the oldest traces are printed early. At most `max_at_once`
    traces are printed at a time; how many more there were is said in a line.
    """

    def __init__(
        self,
        file: TextIO,
        *,
        color: bool,
        width: int = DEFAULT_WIDTH,
        quiet: float = 0.5,
        max_spans: int = 5000,
        max_at_once: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._color = color
        self._width = width
        self._quiet = quiet
        self._max_spans = max_spans
        self._max_at_once = max_at_once
        self._clock = clock
        self._held = 0
        # The trace that changed last stands last.
        self._traces: dict[int, tuple[float, list[Span]]] = {}

    def export(self, spans: list[Span]) -> Result:
        now = self._clock()
        for span in spans:
            _, trace = self._traces.pop(span.trace_id, (0.0, []))
            trace.append(span)
            self._traces[span.trace_id] = (now, trace)
        self._held += len(spans)
        self.idle()
        return Result(Outcome.SENT)

    def idle(self) -> None:
        """Print the traces that are quiet, and those that are too many."""
        before = self._clock() - self._quiet
        done = []
        for trace_id, (changed, trace) in self._traces.items():
            if changed > before and self._held <= self._max_spans:
                break
            self._held -= len(trace)
            done.append(trace_id)
        self._print([self._traces.pop(trace_id)[1] for trace_id in done])

    def shutdown(self) -> None:
        traces = [trace for _, trace in self._traces.values()]
        self._traces.clear()
        self._held = 0
        self._print(traces)

    def _print(self, traces: list[list[Span]]) -> None:
        if not traces:
            return
        shown = [span for trace in traces[: self._max_at_once] for span in trace]
        text = render_traces(shown, width=self._width, color=self._color, unicode=can_draw(self._file))
        more = len(traces) - self._max_at_once
        if more > 0:
            text += f"({more} more traces are not shown)\n\n"
        self._file.write(text)
        self._file.flush()


def can_draw(file: TextIO) -> bool:
    """Whether a stream's encoding has box-drawing characters."""
    return "utf" in (getattr(file, "encoding", None) or "utf-8").lower()


def render_traces(
    spans: list[Span], *, width: int = DEFAULT_WIDTH, color: bool = False, unicode: bool = True
) -> str:
    """Draw every trace as a tree, oldest first: who, what, status, duration, when in the trace, and the link.

    A span whose parent is not among `spans` stands at the top level of its trace.
    """
    traces: dict[int, list[Span]] = {}
    for span in sorted(spans, key=_order):
        traces.setdefault(span.trace_id, []).append(span)
    styles: dict[str, str] = {}
    for span in sorted(spans, key=_order):
        styles.setdefault(span.process.service, _SERVICE_STYLES[len(styles) % len(_SERVICE_STYLES)])
    glyphs = _UNICODE if unicode else _ASCII
    lines: list[Text] = []
    for trace in traces.values():
        lines += _trace_lines(trace, styles, glyphs, width)
    return _draw(lines, width, color)


def _order(span: Span) -> tuple[int, int]:
    return span.start_unix_ns, span.span_id


def _trace_lines(spans: list[Span], styles: Mapping[str, str], glyphs: _Glyphs, width: int) -> list[Text]:
    from rich.text import Text

    begin = min(span.start_unix_ns for span in spans)
    length = max(max(span.end_unix_ns for span in spans) - begin, 1)
    services = len({span.process.service for span in spans})
    errors = sum(span.is_error for span in spans)
    head = Text()
    head.append(f"trace {spans[0].trace_id:032x}", "bold")
    facts = [_duration(length / 1e9, glyphs), _count(len(spans), "span"), _count(services, "service")]
    head.append(f"  {f' {glyphs.dot} '.join(facts)}", "dim")
    if errors:
        head.append(f" {glyphs.dot} ", "dim")
        head.append(_count(errors, "error"), "bold red")
    lines = [head]
    for span, prefix in _walk(spans, glyphs):
        lines.append(_span_line(span, prefix, styles, glyphs, width, begin, length))
    lines.append(Text())
    return lines


def _walk(spans: list[Span], glyphs: _Glyphs) -> list[tuple[Span, str]]:
    """The spans in the order of drawing, each with the branches before it. Loops of parents are cut open."""
    known = {span.span_id for span in spans}
    children: dict[int, list[Span]] = {}
    for span in spans:
        parent = span.parent_span_id
        children.setdefault(parent if parent in known and parent != span.span_id else 0, []).append(span)
    out: list[tuple[Span, str]] = []
    drawn: set[int] = set()
    for start in (*children.get(0, []), *spans):
        waiting = [(start, "", "")]
        while waiting:
            span, prefix, below = waiting.pop()
            if id(span) in drawn:
                continue
            drawn.add(id(span))
            out.append((span, prefix))
            own = children.get(span.span_id, []) if span.span_id else []
            for i, child in enumerate(reversed(own)):
                last = i == 0
                waiting.append(
                    (
                        child,
                        below + (glyphs.last if last else glyphs.branch),
                        below + (glyphs.gap if last else glyphs.pass_by),
                    )
                )
    return out


def _span_line(
    span: Span, prefix: str, styles: Mapping[str, str], glyphs: _Glyphs, width: int, begin: int, length: int
) -> Text:
    from rich.text import Text

    attributes = span.attributes
    status = attributes.get("http.response.status_code", attributes.get("rpc.response.status_code"))
    error = "bold red" if span.is_error else ""
    left = Text()
    deepest = _DEEPEST_INDENT * len(glyphs.gap)
    left.append(prefix if len(prefix) <= deepest else glyphs.cut + prefix[1 - deepest :], "dim")
    left.append(_printable(span.process.service), styles[span.process.service])
    # A client span is drawn as a call on its way out, so that the sides of an exchange differ at a glance.
    left.append(" -> " if span.role is Role.CLIENT else " ", "dim")
    left.append(_printable(_title(span)), error)
    if span.is_error and status is None:
        left.append(f" {_printable(str(attributes.get('error.type', span.status_message)))}", error)
    shown = "  -" if status is None else f"{status!s:>3}"
    right = len(shown) + 1 + 9 + 2 + _BAR_WIDTH + 2 + _LINK_WIDTH
    room = max(width - right - 1, 20)
    if left.cell_len > room:
        left.truncate(room - 1)
        left.append(glyphs.cut)
    left.pad_right(room - left.cell_len)
    seconds = max(span.end_unix_ns - span.start_unix_ns, 0) / 1e9
    left.append(f" {shown} ", error)
    left.append(f"{_duration(seconds, glyphs):>9}  ")
    left.append(_bar(span, glyphs, begin, length), "red" if span.is_error else styles[span.process.service])
    method = str(attributes.get("autotrace.link.method", ""))
    left.append(f"  {'root' if method == 'none' else method}"[: _LINK_WIDTH + 2], "dim")
    left.rstrip()
    return left


def _title(span: Span) -> str:
    """A span's name; a client's with its destination, which the name leaves out."""
    if span.role is Role.SERVER:
        return span.name
    address = span.attributes.get("server.address")
    if address is None:
        return span.name
    port = span.attributes.get("server.port")
    method, _, rest = span.name.partition(" ")
    scheme = "https://" if str(span.attributes.get("url.full", "")).startswith("https:") else ""
    return f"{method} {scheme}{address}{f':{port}' if port else ''}{rest}"


def _bar(span: Span, glyphs: _Glyphs, begin: int, length: int) -> str:
    """When in the trace the span was: `_BAR_WIDTH` cells stand for the whole trace."""
    start = min(int((span.start_unix_ns - begin) * _BAR_WIDTH / length), _BAR_WIDTH - 1)
    end = max(round((span.end_unix_ns - begin) * _BAR_WIDTH / length), start + 1)
    return (" " * start + glyphs.bar * (end - start)).ljust(_BAR_WIDTH)


def render_red(
    snapshot: RedSnapshot,
    *,
    width: int = DEFAULT_WIDTH,
    color: bool = False,
    unicode: bool = True,
    max_rows: int = 60,
) -> str:
    """Draw rate, errors and duration of every service, side and route, servers first, busiest first.

    If there are more than `max_rows`, the services that have most lose their last ones, so that none hides another.
    The quantiles come from the fine histogram and are right to about 5 %.
    """
    from rich.text import Text

    glyphs = _UNICODE if unicode else _ASCII
    all_rows = red_rows(snapshot)
    rows = _shared_out(all_rows, max_rows)
    seconds = max((snapshot.time_unix_ns - snapshot.start_unix_ns) / 1e9, 1e-9)
    service_width = min(max([len(row.service) for row in rows] + [7]), _SERVICE_WIDTH)
    titles = _RED_FIGURES.format(*_RED_TITLES)
    route_width = max(width - service_width - len(titles) - 10, 10)
    head = f"{'service':<{service_width}}  {'side':<6}  {'route':<{route_width}}{titles}"
    lines = [Text(head, "bold"), Text(glyphs.rule * width, "dim")]
    previous = ""
    for row in rows:
        service = _fit(row.service, service_width, glyphs) if row.service != previous else " " * service_width
        previous = row.service
        share = f"{row.errors / row.requests:.1%}" if row.errors else "0"
        quantiles = (_duration(quantile(row.fine, q), glyphs) for q in (0.5, 0.95, 0.99))
        figures = _RED_FIGURES.format(
            f"{row.requests:,}", f"{row.requests / seconds:,.1f}", share, *quantiles
        )
        line = Text(f"{service}  {row.side:<6}  {_fit(row.route, route_width, glyphs)}")
        line.append(figures, "red" if row.errors else "")
        lines.append(line)
    if len(all_rows) > len(rows):
        lines.append(Text(f"({len(all_rows) - len(rows)} more rows are not shown)", "dim"))
    return _draw(lines, width, color)


def _shared_out(rows: list[RedRow], most: int) -> list[RedRow]:
    """At most so many of the rows, in their order: the first ones of each service, as many of one as of another."""
    seen: Counter[str] = Counter()
    ranks = []
    for row in rows:
        ranks.append(seen[row.service])
        seen[row.service] += 1
    kept = sorted(range(len(rows)), key=lambda number: (ranks[number], number))[:most]
    return [rows[number] for number in sorted(kept)]


class RedRow(NamedTuple):
    """A line of the RED table: one route on one side of one service, all methods and statuses together."""

    service: str
    side: str
    route: str
    requests: int
    errors: int
    fine: dict[int, int]


def red_rows(snapshot: RedSnapshot) -> list[RedRow]:
    """Add up the series of a snapshot by service, side and route."""
    rows: dict[tuple[str, str, str], RedRow] = {}
    for service in snapshot.services:
        for side, points in (
            ("server", service.server),
            ("client", service.client),
            ("server", service.rpc_server),
            ("client", service.rpc_client),
        ):
            for point in points:
                key = (service.service, side, _route(point))
                requests = sum(point.counts)
                row = rows.get(key) or RedRow(*key, 0, 0, {})
                for step, n in point.fine.items():
                    row.fine[step] = row.fine.get(step, 0) + n
                rows[key] = row._replace(
                    requests=row.requests + requests,
                    errors=row.errors + (requests if "error.type" in point.attributes else 0),
                )
    return sorted(
        rows.values(), key=lambda row: (row.service, row.side != "server", -row.requests, row.route)
    )


def quantile(fine: Mapping[int, int], q: float) -> float:
    """The `q` quantile in seconds of a fine histogram (`HistogramPoint.fine`); 0 if it is empty."""
    rank = q * sum(fine.values())
    so_far = 0
    for step in sorted(fine):
        so_far += fine[step]
        if so_far >= rank:
            # The middle of the step on its logarithmic scale.
            return float(2.0 ** ((step + 0.5) / FINE_STEPS_PER_OCTAVE))
    return 0.0


class Summary:
    """One line on how it goes, for an interactive `autotrace run`: each covers the time since the last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = (clock(), 0, 0)

    def line(self, snapshot: RedSnapshot, ledger: Mapping[str, Any]) -> str:
        """`ledger` is what `Ledger.snapshot` gave."""
        rows = red_rows(snapshot)
        now = self._clock()
        requests = sum(row.requests for row in rows)
        errors = sum(row.errors for row in rows)
        then, requests_then, errors_then = self._last
        self._last = (now, requests, errors)
        new = requests - requests_then
        share = (errors - errors_then) / new if new else 0.0
        exchanges = ledger["exchanges"]
        parts = [
            f"{requests:,} exchanges",
            f"{new / max(now - then, 1e-9):.1f}/s",
            f"{share:.1%} errors",
            _count(len(snapshot.services), "service"),
            f"{exchanges['in_flight']} in flight",
            f"{sum(exchanges['dropped'].values())} dropped",
        ]
        waiting = sum(account["queued"] for account in ledger["exporters"].values())
        lost = sum(sum(account["dropped"].values()) for account in ledger["exporters"].values())
        if waiting:
            parts.append(f"{waiting} spans queued")
        if lost:
            parts.append(f"{lost} spans not exported")
        return " | ".join(parts)


def _route(point: HistogramPoint) -> str:
    attributes = point.attributes
    route = attributes.get("http.route") or attributes.get("url.template") or ""
    if "rpc.method" in attributes:
        route = f"/{attributes['rpc.method']}"
    address = attributes.get("server.address")
    if address is not None:
        port = attributes.get("server.port")
        return f"{address}{f':{port}' if port else ''}{route}"
    if "otel.metric.overflow" in attributes:
        return "(over the cap)"
    return str(route) or "(unknown)"


def _duration(seconds: float, glyphs: _Glyphs) -> str:
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.0f} {glyphs.micro}"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.{1 if seconds < 0.09995 else 0}f} ms"
    return f"{seconds:.2f} s"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _printable(text: str) -> str:
    """Traffic chooses parts of these texts: nothing of it may steer the terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _fit(text: str, width: int, glyphs: _Glyphs) -> str:
    text = _printable(text)
    return text.ljust(width) if len(text) <= width else text[: width - 1] + glyphs.cut


def _draw(lines: list[Text], width: int, color: bool) -> str:
    from rich.console import Console

    out = StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    for line in lines:
        console.print(line, no_wrap=True, overflow="ellipsis", crop=False, soft_wrap=False)
    return out.getvalue()
