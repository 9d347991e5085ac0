"""Trace the demo shop: start the agent with the shop as its child, send it requests, let the agent report.

    sudo .venv/bin/python demo_services/run_demo.py [--keep]

The agent watches the shop and nothing else of the machine. The requests come from this process, which is not
watched, so nginx's spans are the roots of the traces.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import yaml
from shop import BUILT, HERE, Ports, listening_ports, prepare_tls

ROUNDS = 5
FIRST_ROUND_PAUSE_S = 0.15
"""After each request of the first round: the console shows no more than a few traces at a time."""
BURST_REQUESTS = 80
BURST_CONCURRENCY = 8
START_TIMEOUT_S = 40.0
PROBED = (
    "/libssl.so.3 (OpenSSL)",
    "/pricing (Go's crypto/tls)",
    "/pricing (Go's net/http client)",
    "/delivery (gRPC-Go's client)",
    "/delivery (gRPC-Go's server)",
)
"""Parts of what the agent says once it reads TLS, and asks Go's runtime."""
STOP_TIMEOUT_S = 30.0
AUTOTRACE = HERE.parent / ".venv" / "bin" / "autotrace"


class DemoError(Exception):
    """The demo cannot go on; the text is one sentence for the user."""


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def routes() -> list[dict[str, Any]]:
    """The shop's routes: `method`, `path` with `{id}` in it, and perhaps `body_bytes`."""
    entries = yaml.safe_load((HERE / "expected_trees.yaml").read_text())["requests"]
    return [entry["request"] for entry in entries]


class Said:
    """Passes on what the agent says, and knows it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._pass_on, args=(stream,), daemon=True)
        self._thread.start()

    def __contains__(self, part: str) -> bool:
        return any(part in line for line in self._lines)

    def join(self) -> None:
        self._thread.join()

    def _pass_on(self, stream: IO[bytes]) -> None:
        for raw in stream:
            line = raw.decode(errors="replace")
            self._lines.append(line)
            print(line, end="", file=sys.stderr, flush=True)


def send(port: int, trusted: ssl.SSLContext, route: dict[str, Any], request_id: int) -> int:
    """Send one request over a connection of its own, with TLS, and return the status."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=trusted)
    try:
        body = b"x" * route["body_bytes"] if "body_bytes" in route else None
        connection.request(route["method"], route["path"].replace("{id}", str(request_id)), body)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def drive(port: int) -> int:
    """Send every route a few times, one request at a time, then a burst of several at once; say how many."""
    every_route = routes()
    trusted = ssl.create_default_context(cafile=str(prepare_tls().certificate))
    request_id = 1000
    for number in range(ROUNDS):
        for route in every_route:
            request_id += 1
            send(port, trusted, route, request_id)
            time.sleep(0 if number else FIRST_ROUND_PAUSE_S)
    calm = request_id - 1000
    burst = next(route for route in every_route if route["path"] == "/checkout/{id}")
    with ThreadPoolExecutor(BURST_CONCURRENCY) as pool:
        ids = range(request_id + 1, request_id + 1 + BURST_REQUESTS)
        list(pool.map(lambda number: send(port, trusted, burst, number), ids))
    return calm + BURST_REQUESTS


def wait_open(ports: Ports, agent: subprocess.Popen[bytes], said: Said) -> None:
    """Wait until the shop is open and the agent has set its probes. Raises DemoError."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while ports.missing() or not all(part in said for part in PROBED):
        if agent.poll() is not None:
            raise DemoError(
                f"autotrace ended with exit status {agent.returncode} before the shop was open; "
                "its own message is above"
            )
        if time.monotonic() > deadline:
            problem = "open" if ports.missing() else "seen by all probes"
            raise DemoError(
                f"the shop is not {problem} after {START_TIMEOUT_S:.0f} s; see above, and {BUILT / 'logs'}"
            )
        time.sleep(0.05)


def metrics_lines(port: int) -> int:
    """How many lines the agent's /metrics has now. Raises DemoError if it does not answer with 200."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        lines = response.read().count(b"\n")
        connection.close()
    except OSError as error:
        raise DemoError(f"/metrics of the agent on port {port} cannot be read: {error}") from error
    if response.status != 200:
        raise DemoError(f"/metrics of the agent on port {port} answered {response.status}")
    return lines


def run(base_port: int, metrics_port: int, keep: bool) -> int:
    """Run the demo and return the agent's exit status. Raises DemoError if it cannot go on."""
    if os.geteuid() != 0:
        raise DemoError("watching processes with eBPF needs root; run `sudo make demo`")
    ports = Ports.from_base(base_port)
    taken = sorted(listening_ports() & {*ports, metrics_port})
    if taken:
        raise DemoError(
            f"port {taken[0]} is in use by another program; end it, or choose other ports with "
            "--port and --metrics-port"
        )
    spans = BUILT / "spans.jsonl"
    spans.unlink(missing_ok=True)
    shop = [sys.executable, str(HERE / "shop.py"), "up", "--port", str(base_port)]
    options = [
        *("--json", str(spans), "--console", "on"),
        *("--metrics-host", "127.0.0.1", "--metrics-port", str(metrics_port)),
        # A probe in a library of the system would be hit by programs that are not of the shop.
        *("--tls", f"{BUILT}/*", "--runtime-probes", f"{BUILT}/*"),
    ]
    interrupted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _frame: interrupted.append(got))

    say("starting the agent, and the shop under it: nginx, Flask, Express, Go, gRPC in Go, Python and Node")
    # A session of its own: Ctrl-C reaches only us, and we end the agent once, in order.
    # setpriv: it does not outlive us either.
    command = ["setpriv", "--pdeathsig", "TERM", str(AUTOTRACE), "run", *options, "--", *shop]
    agent = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    assert agent.stderr is not None
    said = Said(agent.stderr)
    try:
        wait_open(ports, agent, said)
        started = time.monotonic()
        say(f"sending requests to https://127.0.0.1:{ports.nginx_tls}")
        count = drive(ports.nginx_tls)
        say(f"{count} requests were answered in {time.monotonic() - started:.1f} s")
        lines = metrics_lines(metrics_port)
        say(f"metrics are at http://127.0.0.1:{metrics_port}/metrics while the agent runs: {lines} lines now")
        if keep:
            say(
                f"the shop stays open until Ctrl-C; try curl -k https://127.0.0.1:{ports.nginx_tls}/product/1"
            )
        else:
            say("`make demo KEEP=1` keeps all of it up")
        while keep and not interrupted and agent.poll() is None:
            time.sleep(0.2)
        say("closing the shop; the agent reports what it saw")
    finally:
        status = end(agent)
        said.join()
    say(
        "calls that stand as a root were made by another thread, by one that wrote for others, or while Node had "
        "several requests open: their parents are not certain, and autotrace does not guess"
    )
    say(f"every span is in {spans}, a line for each batch")
    return status


def end(agent: subprocess.Popen[bytes]) -> int:
    """Ask the agent, which passes it on to the shop, to end; wait for it and return its exit status."""
    if agent.poll() is None:
        agent.terminate()
    try:
        return agent.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()
        raise DemoError(f"the agent did not end within {STOP_TIMEOUT_S:.0f} s and was killed") from None


def main() -> int:
    parser = argparse.ArgumentParser(description="Trace the demo shop and show the traces.")
    parser.add_argument("--keep", action="store_true", help="stay up until Ctrl-C")
    parser.add_argument("--port", type=int, default=18080, help="nginx's port; nine more follow it")
    parser.add_argument("--metrics-port", type=int, default=9464, help="the agent's /metrics")
    options = parser.parse_args()
    try:
        return run(options.port, options.metrics_port, options.keep)
    except DemoError as error:
        print(f"demo: {error}.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
