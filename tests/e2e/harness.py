"""Runs the real agent on real processes, and reads back what it made of them."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AUTOTRACE = [sys.executable, "-m", "autotrace.cli"]
POWERLESS = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
"""Before a command: it may do nothing then that an ordinary user may not."""

SERVICES = Path(__file__).parent / "services"
EXPORTED = r"export {}: accepted (\d+) = sent (\d+) \+ dropped \d+(?: \(([^)]*)\))?; queued (\d+)"
LEDGER = re.compile(
    r"exchanges: seen (\d+) = emitted (\d+) \+ dropped (\d+)(?: \(([^)]*)\))?; in flight (\d+)"
)


@dataclass
class SpanRecord:
    """One span of the agent's OTLP file."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    service: str
    pid: int
    start: int
    end: int
    error: bool
    attributes: dict[str, Any]

    @property
    def path(self) -> str:
        """The path of the request, on either side."""
        if "url.path" in self.attributes:
            return str(self.attributes["url.path"])
        full = str(self.attributes.get("url.full", ""))
        return "/" + full.split("/", 3)[3] if full.count("/") >= 3 else ""

    @property
    def status(self) -> int:
        return int(self.attributes.get("http.response.status_code", 0))

    @property
    def link(self) -> str:
        return str(self.attributes["autotrace.link.method"])


@dataclass
class Result:
    """What a run of the agent left: its spans, its ledger line, its exit code, what it said."""

    spans: list[SpanRecord]
    code: int
    said: str
    ledger: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    def server(self, service: str = "") -> list[SpanRecord]:
        return [s for s in self.spans if s.kind == "server" and (not service or s.service == service)]

    def client(self, service: str = "") -> list[SpanRecord]:
        return [s for s in self.spans if s.kind == "client" and (not service or s.service == service)]

    def parent_of(self, span: SpanRecord) -> SpanRecord | None:
        return next((s for s in self.spans if s.span_id == span.parent_id), None)

    def exported(self, name: str) -> dict[str, int]:
        """The account of one exporter, its drops by reason; what is 0 is left out."""
        found = re.search(EXPORTED.format(name), self.said)
        assert found, self.said
        accepted, sent, reasons, queued = found.groups()
        account = {"accepted": int(accepted), "sent": int(sent), "queued": int(queued)}
        for item in (reasons or "").split(", ") if reasons else ():
            reason, n = item.rsplit(" ", 1)
            account[reason] = int(n)
        return {key: n for key, n in account.items() if n}

    def check_ledger(self) -> None:
        """seen = emitted + dropped, and nothing in flight: the books must balance at the end of every run."""
        books = self.ledger
        assert books, f"the agent printed no ledger:\n{self.said}"
        assert books["seen"] == books["emitted"] + books["dropped"] + books["in_flight"], self.said
        assert books["in_flight"] == 0, self.said
        assert books["emitted"] == len(self.spans), self.said


def _value(value: dict[str, Any]) -> Any:
    kind, inner = next(iter(value.items()))
    return int(inner) if kind == "intValue" else inner


def read_spans(path: Path) -> list[SpanRecord]:
    """The spans of an OTLP file."""
    spans = []
    kinds = {2: "server", 3: "client"}
    for line in filter(
        None, path.read_text().split("\n")
    ):  # a value may hold what else str.splitlines splits at
        for resource_spans in json.loads(line)["resourceSpans"]:
            resource = {a["key"]: _value(a["value"]) for a in resource_spans["resource"]["attributes"]}
            for scope in resource_spans["scopeSpans"]:
                for span in scope["spans"]:
                    spans.append(
                        SpanRecord(
                            span["traceId"],
                            span["spanId"],
                            span.get("parentSpanId", ""),
                            span["name"],
                            kinds[span["kind"]],
                            resource.get("service.name", ""),
                            resource.get("process.pid", 0),
                            int(span["startTimeUnixNano"]),
                            int(span["endTimeUnixNano"]),
                            span.get("status", {}).get("code") == 2,
                            {a["key"]: _value(a["value"]) for a in span["attributes"]},
                        )
                    )
    return spans


class Traced:
    """An agent that watches only the command it starts (and the children of that), or what `options` select."""

    def __init__(
        self,
        directory: Path,
        command: list[str],
        options: tuple[str, ...] = (),
        before: tuple[str, ...] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.json = directory / "spans.jsonl"
        self.runtime_dir = directory / "run"
        self._said = directory / "agent.log"
        arguments = [
            *before, *AUTOTRACE, "run", "--json", str(self.json), "--metrics-port", "0",
            "--console", "off", "--runtime-dir", str(self.runtime_dir), "--cache-dir", str(directory / "cache"),
            *options,
            *(["--", *command] if command else []),
        ]  # fmt: skip
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(arguments, stdout=said, stderr=said, start_new_session=True)

    def __enter__(self) -> Traced:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise

    def said(self) -> str:
        return self._said.read_text()

    def status(self) -> dict[str, Any]:
        """What `autotrace status` says; empty while the agent does not answer."""
        asked = cli("status", "--json", "--runtime-dir", str(self.runtime_dir))
        answer: dict[str, Any] = json.loads(asked.stdout) if asked.returncode == 0 else {}
        return answer

    def watched(self) -> set[int]:
        """The pids that the agent says it watches; it says so at most a second later."""
        return {process["pid"] for process in self.status().get("processes", ())}

    def finish(self, quiet: float = 0.6) -> Result:
        """Let the last spans come, end the command, and read everything back."""
        time.sleep(quiet)
        self.__exit__()
        said = self.said()
        result = Result(read_spans(self.json) if self.json.exists() else [], self.process.returncode, said)
        if found := LEDGER.search(said):
            seen, emitted, dropped, reasons, in_flight = found.groups()
            result.ledger = {
                "seen": int(seen), "emitted": int(emitted), "dropped": int(dropped), "in_flight": int(in_flight),
            }  # fmt: skip
            if reasons:
                result.dropped = {
                    name: int(n) for name, n in (item.rsplit(" ", 1) for item in reasons.split(", "))
                }
        return result


@contextmanager
def running(command: list[str], *ports: int) -> Iterator[subprocess.Popen[bytes]]:
    """A service that no agent started; it listens on `ports` when this is entered, and ends with it."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        for port in ports:
            wait_for(lambda port=port: listening(port), f"{command} to listen on {port}")
        yield process
    finally:
        process.terminate()
        process.wait(20)


def drive(port: int, paths: list[str], concurrency: int = 1, keep_alive: bool = True) -> list[int]:
    """GET every path, `concurrency` requests at a time, and give the statuses in the order of the paths.

    A request that fails fails the test.
    """
    statuses = [0] * len(paths)

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for i in range(number, len(paths), concurrency):
            connection.request("GET", paths[i], headers={} if keep_alive else {"Connection": "close"})
            response = connection.getresponse()
            response.read()
            statuses[i] = response.status
            if not keep_alive:
                connection.close()
        connection.close()

    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(client, range(concurrency)))
    return statuses


def cli(*arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run an autotrace command to its end; `before` stands before it."""
    return subprocess.run([*before, *AUTOTRACE, *arguments], capture_output=True, text=True, timeout=200)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Wait until `condition` holds; the test fails if it does not come to."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.02)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def log_entries(path: Path) -> list[dict[str, Any]]:
    """A service's own log, the truth that spans are held against, up to its last whole line."""
    return [json.loads(line) for line in path.read_text().rpartition("\n")[0].splitlines()]


def nginx_config(directory: Path, port: int, body: str, http: str = "") -> Path:
    """A configuration for an nginx of one worker whose files all stand in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    temp = "".join(
        f"{kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = directory / "nginx.conf"
    config.write_text(
        f"""daemon off; worker_processes 1; user root; pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  log_format truth escape=json '{{"method":"$request_method","path":"$uri","status":$status,"s":$request_time}}';
  access_log {directory}/access.log truth;
  keepalive_requests 100000;
  {temp}
  {http}
  server {{ listen 127.0.0.1:{port} backlog=511; {body} }}
}}
"""
    )
    return config


def shell(*commands: str) -> list[str]:
    """Run programs side by side under one shell, and end them all when it is asked to end."""
    script = "trap 'kill $(jobs -p) 2>/dev/null; wait; exit 0' TERM INT; "
    return ["bash", "-c", script + " ".join(f"{command} &" for command in commands) + " wait; wait"]


def open_descriptors() -> Iterator[str]:
    for entry in Path("/proc/self/fd").iterdir():
        try:
            yield str(entry.readlink())
        except OSError:
            continue
