"""What a person at a terminal reads."""

import io
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from autotrace.export.console import ConsoleExporter, Summary, quantile, red_rows, render_red, render_traces
from autotrace.ledger import Ledger
from autotrace.metrics import RedMetrics
from autotrace.model import Connection, Context, Exchange, Process, Role, Span

T0 = 1_700_000_000_000_000_000
PROCESSES = {name: Process(1, "/x", {"service.name": name}) for name in ("web", "shop", "stock")}


def span(
    span_id: int,
    parent: int,
    service: str,
    name: str,
    role: Role,
    ms: tuple[float, float],
    link: str,
    *,
    status: int = 200,
    trace_id: int = 0xABC,
    **attributes: Any,
) -> Span:
    fields: dict[str, Any] = {"autotrace.link.method": link, **attributes}
    if status:
        fields["http.response.status_code"] = status
    is_error = status >= 500 or "error.type" in fields
    start, end = (T0 + int(moment * 1e6) for moment in ms)
    return Span(trace_id, span_id, parent, name, role, start, end, fields, is_error, "", PROCESSES[service])


STOCK = {"server.address": "stock", "server.port": 80}
TRACE = [
    span(1, 0, "web", "GET /shop/{id}", Role.SERVER, (0, 40), "none"),
    span(3, 2, "shop", "GET /shop/{id}", Role.SERVER, (2, 38), "wire"),
    span(
        5,
        3,
        "shop",
        "GET",
        Role.CLIENT,
        (30, 31),
        "thread",
        status=0,
        **{"error.type": "ECONNREFUSED"},
        **STOCK,
    ),
    span(4, 3, "shop", "GET /stock/{id}", Role.CLIENT, (10, 20), "thread", status=404, **STOCK),
    span(2, 1, "web", "GET", Role.CLIENT, (1, 39), "dispatch", **{"server.address": "10.0.0.1"}),
]


def test_a_trace_is_a_tree() -> None:
    bar = "━" * 18
    assert render_traces(TRACE).splitlines() == [
        "trace 00000000000000000000000000000abc  40.0 ms · 5 spans · 2 services · 1 error",
        f"web GET /shop/{{id}}                                      200   40.0 ms  {bar}  root",
        f"╰─ web -> GET 10.0.0.1                                  200   38.0 ms  {bar}  dispatch",
        "   ╰─ shop GET /shop/{id}                               200   36.0 ms  ━━━━━━━━━━━━━━━━━   wire",
        "      ├─ shop -> GET stock:80/stock/{id}                404   10.0 ms      ━━━━━           thread",
        "      ╰─ shop -> GET stock:80 ECONNREFUSED                -    1.0 ms               ━      thread",
        "",
    ]


def test_a_call_with_tls_says_so_and_a_long_status_leaves_the_columns_where_they_are() -> None:
    secure = {"url.full": "https://stock:80/stock/7", **STOCK}
    called = {"rpc.response.status_code": "NOT_FOUND", "error.type": "NOT_FOUND", "server.address": "stock"}
    trace = [
        span(1, 0, "shop", "GET /stock/{id}", Role.CLIENT, (0, 9), "none", **secure),
        span(2, 1, "shop", "shop.Stock/Find", Role.CLIENT, (0, 9), "thread", status=0, **called),
    ]
    bar = "━" * 18
    assert render_traces(trace).splitlines()[1:] == [
        f"shop -> GET https://stock:80/stock/{{id}}                 200    9.0 ms  {bar}  root",
        f"╰─ shop -> shop.Stock/Find stock                  NOT_FOUND    9.0 ms  {bar}  thread",
        "",
    ]


def test_ascii_where_the_stream_has_nothing_better() -> None:
    assert render_traces(TRACE, unicode=False).isascii()


def test_colour_only_where_asked() -> None:
    assert "\x1b[" not in render_traces(TRACE)
    assert "\x1b[1;31m" in render_traces(TRACE, color=True)


def test_lines_fit_and_traffic_cannot_steer_the_terminal() -> None:
    evil = span(1, 0, "web", "GET /\x1b[2J" + "x" * 300 + "[red]", Role.SERVER, (0, 1), "none")
    text = render_traces([evil])
    assert "\x1b" not in text
    assert all(len(line) <= 100 for line in text.splitlines())


@given(
    st.lists(
        st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(0, 9), st.integers(0, 9), st.text()),
        max_size=20,
    )
)
def test_every_span_is_drawn_once_whatever_the_parents(rows: list[tuple[int, int, int, int, str]]) -> None:
    """Loops, unknown parents, equal ids, ends before starts, any text."""
    spans = [
        span(i, parent, "web", f"{n}#{name}", Role.SERVER, (start, end), "wire")
        for n, (i, parent, start, end, name) in enumerate(rows)
    ]
    lines = render_traces(spans).splitlines()
    for n in range(len(rows)):
        assert sum(f"web {n}#" in line for line in lines) == 1


def test_deep_traces_are_drawn() -> None:
    chain = [span(i, i - 1, "web", f"GET /{i}", Role.SERVER, (i, 2000 - i), "wire") for i in range(1, 800)]
    lines = render_traces(chain).splitlines()
    assert len(lines) == 801
    assert all(len(line) <= 100 for line in lines)
    assert "GET /799" in lines[-2]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_exporter_waits_until_a_trace_is_quiet() -> None:
    out, clock = io.StringIO(), Clock()
    exporter = ConsoleExporter(out, color=False, quiet=0.5, clock=clock)
    exporter.export(TRACE[:2])
    clock.now = 0.4
    exporter.export(TRACE[2:])
    clock.now = 0.6
    exporter.idle()
    assert out.getvalue() == ""
    clock.now = 0.9
    exporter.idle()
    assert out.getvalue() == render_traces(TRACE)
    exporter.shutdown()
    assert out.getvalue() == render_traces(TRACE)


def test_the_exporter_holds_a_bounded_number_of_spans(make_span: Callable[..., Span]) -> None:
    out, clock = io.StringIO(), Clock()
    exporter = ConsoleExporter(out, color=False, max_spans=50, max_at_once=3, clock=clock)
    exporter.export([make_span(i) for i in range(60)])
    assert out.getvalue().count("trace a") == 3
    assert "(7 more traces are not shown)" in out.getvalue()
    exporter.shutdown()
    assert "(47 more traces are not shown)" in out.getvalue()


def observe(
    red: RedMetrics, role: Role, seconds: float, status: int, service: str, route: str, n: int = 1
) -> None:
    connection = Connection(1, 1, 2, 1, 0, 1, "10.0.0.1", 40000, "10.0.0.2", 8080, True, None)
    at = Context(0, 1, 1, 0, 0, 0)
    for _ in range(n):
        end = 10**12 + round(seconds * 1e9)
        exchange = Exchange(connection, role, at, 0, "GET", "/", "1.1", {}, 10**12, end_ns=end, status=status)
        red.observe(exchange, PROCESSES[service], route)


def test_the_red_table() -> None:
    red = RedMetrics(Ledger())
    observe(red, Role.SERVER, 0.02, 200, "shop", "/item/{id}", 90)
    observe(red, Role.SERVER, 2.0, 503, "shop", "/item/{id}", 10)
    observe(red, Role.CLIENT, 0.0001, 200, "shop", "/a", 5)
    observe(red, Role.SERVER, 0.3, 200, "web", "/x" * 200)
    snapshot = red.collect()
    snapshot = snapshot._replace(time_unix_ns=snapshot.start_unix_ns + 10 * 10**9)
    lines = render_red(snapshot).splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert lines[0].split() == [
        "service",
        "side",
        "route",
        "requests",
        "per",
        "s",
        "errors",
        "p50",
        "p95",
        "p99",
    ]
    assert lines[2].split()[:6] == ["shop", "server", "/item/{id}", "100", "10.0", "10.0%"]
    assert lines[3].split()[:5] == ["client", "10.0.0.2:8080/a", "5", "0.5", "0"]
    assert lines[4].startswith("web ")
    row = red_rows(snapshot)[0]
    assert 0.019 < quantile(row.fine, 0.5) < 0.021
    assert 1.9 < quantile(row.fine, 0.95) < 2.1


def test_a_long_red_table_is_cut() -> None:
    red = RedMetrics(Ledger())
    for i in range(50):
        observe(red, Role.SERVER, 0.02, 200, "shop", f"/{i}")
    lines = render_red(red.collect(), max_rows=40).splitlines()
    assert len(lines) == 43
    assert lines[-1] == "(10 more rows are not shown)"


def test_a_service_of_many_routes_hides_no_other_service() -> None:
    red = RedMetrics(Ledger())
    for i in range(50):
        observe(red, Role.SERVER, 0.02, 200, "shop", f"/{i}")
    for i in range(3):
        observe(red, Role.SERVER, 0.02, 200, "web", f"/{i}")
    lines = render_red(red.collect(), max_rows=40).splitlines()
    assert len(lines) == 43
    assert [line[:6].strip() for line in lines if line[:1] not in " ("] == ["servic", "─" * 6, "shop", "web"]
    assert lines[39].startswith("web ")


def test_an_empty_red_table() -> None:
    assert len(render_red(RedMetrics(Ledger()).collect()).splitlines()) == 2


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=100), st.sampled_from([0.5, 0.95, 0.99]))
def test_quantiles_are_right_to_five_percent(durations: list[float], q: float) -> None:
    red = RedMetrics(Ledger())
    for seconds in durations:
        observe(red, Role.SERVER, seconds, 200, "web", "/")
    exact = sorted(round(seconds * 1e9) * 1e-9 for seconds in durations)
    expected = exact[next(i for i in range(len(exact)) if i + 1 >= q * len(exact))]
    assert abs(quantile(red_rows(red.collect())[0].fine, q) / expected - 1) < 0.05


def test_the_summary_covers_the_time_since_the_last_one() -> None:
    clock, ledger = Clock(), Ledger()
    red = RedMetrics(ledger)
    summary = Summary(clock)
    observe(red, Role.SERVER, 0.02, 200, "web", "/", 10)
    ledger.seen(12)
    ledger.emitted(9)
    ledger.dropped("swept")
    ledger.exporter("otlp").accept(3)
    clock.now = 2.0
    first = summary.line(red.collect(), ledger.snapshot())
    assert first == (
        "10 exchanges | 5.0/s | 0.0% errors | 1 service | 2 in flight | 1 dropped | 3 spans queued"
    )
    observe(red, Role.SERVER, 0.02, 500, "web", "/", 1)
    clock.now = 4.0
    assert summary.line(red.collect(), ledger.snapshot()).startswith("11 exchanges | 0.5/s | 100.0% errors |")
