"""The demo shop: nginx in front of a Flask storefront, an Express catalogue and a Go pricing service.

`python demo_services/shop.py up` starts all of it and stays until SIGTERM or Ctrl-C. Tests use `Shop` as a
context manager. Only the standard library is needed; `make services` builds what is started here.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
BUILT = HERE.parent / "build" / "demo"
LISTEN = "0A"


class ShopError(Exception):
    """The shop cannot be started or has lost a service; the text is one sentence for the user."""


class Ports(NamedTuple):
    """Five ports in a row. Nothing ever listens on `dead`."""

    nginx: int
    storefront: int
    catalogue: int
    pricing: int
    dead: int

    @classmethod
    def from_base(cls, base: int) -> Ports:
        return cls(*range(base, base + 5))


def listening_ports() -> set[int]:
    """TCP ports of IPv4 on which somebody listens here.

    Read from /proc/net/tcp rather than found out by connecting: a probe would be an exchange, or a refused
    connection, in the traces of whoever watches the shop.
    """
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTEN}


class Shop:
    """The four services as child processes, each with its access log in `log_dir`.

    Service names are `nginx`, `storefront`, `catalogue` and `pricing`. Ports are `base_port` and the four
    that follow it.
    """

    def __init__(self, base_port: int = 18080, log_dir: Path = BUILT / "logs") -> None:
        self.ports = Ports.from_base(base_port)
        self.log_dir = log_dir.resolve()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Shop:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.nginx}"

    def pid(self, service: str) -> int:
        """The first process of a service; nginx's and gunicorn's workers are its children."""
        return self.processes[service].pid

    def access_log_path(self, service: str) -> Path:
        return self.log_dir / f"{service}.access.jsonl"

    def access_log(self, service: str) -> list[dict[str, Any]]:
        """What the service itself says it answered, in the order the requests ended.

        Each entry has `time` (Unix seconds, when the request ended), `method`, `path` (no query), `status`
        and `duration` (seconds).
        """
        with self.access_log_path(service).open() as lines:
            return [json.loads(line) for line in lines]

    def start(self) -> None:
        """Start the services, with empty access logs.

        Raises ShopError if one is not built, or if a port is taken.
        """
        taken = sorted(listening_ports() & set(self.ports))
        if taken:
            raise ShopError(
                f"port {taken[0]} is in use by another program; choose other ports with --port, "
                "or end that program"
            )
        commands = self._commands()
        for command in commands.values():
            if not Path(command[0]).exists():
                raise ShopError(f"{command[0]} does not exist; build the demo services with `make services`")
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self._prepare_nginx()
        for service, command in commands.items():
            self.access_log_path(service).write_bytes(b"")
            self._spawn(service, command)

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until all services listen; they answer from then on. Raises ShopError if one does not."""
        wanted = set(self.ports) - {self.ports.dead}
        deadline = time.monotonic() + timeout
        while not wanted <= listening_ports():
            self.check()
            if time.monotonic() > deadline:
                missing = ", ".join(str(port) for port in sorted(wanted - listening_ports()))
                raise ShopError(
                    f"nothing listens on port {missing} after {timeout:.0f} s; see the logs in {self.log_dir}"
                )
            time.sleep(0.05)

    def check(self) -> None:
        """Raise ShopError if a service has ended by itself."""
        for service, process in self.processes.items():
            if process.poll() is not None:
                raise ShopError(
                    f"{service} ended with exit status {process.returncode}; "
                    f"the reason is in {self.log_dir / service}.log"
                )

    def stop(self, timeout: float = 10.0) -> None:
        """End all services, front first, and wait for them. Safe to call more than once."""
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + timeout
        for process in self.processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def _commands(self) -> dict[str, list[str]]:
        run_dir = self.log_dir / "nginx"
        as_root = ["-g", "user root;"] if os.geteuid() == 0 else []
        return {
            "pricing": [str(BUILT / "pricing")],
            "catalogue": [_find_program("node"), str(HERE / "node_express" / "catalogue.js")],
            "storefront": [
                str(BUILT / "storefront-venv" / "bin" / "gunicorn"),
                *("--config", str(HERE / "python_flask" / "gunicorn.conf.py")),
                *("--chdir", str(HERE / "python_flask")),
                "storefront:app",
            ],
            "nginx": [
                _find_program("nginx"),
                *("-p", str(run_dir), "-c", str(run_dir / "nginx.conf"), "-e", "stderr"),
                *as_root,
            ],
        }

    def _prepare_nginx(self) -> None:
        run_dir = self.log_dir / "nginx"
        (run_dir / "static").mkdir(parents=True, exist_ok=True)
        for name, size in (("empty.bin", 0), ("small.bin", 1024), ("large.bin", 3 * 1024 * 1024)):
            (run_dir / "static" / name).write_bytes(b"x" * size)
        text = (HERE / "nginx_proxy" / "nginx.conf").read_text()
        values = {
            "RUN_DIR": run_dir,
            "ACCESS_LOG": self.access_log_path("nginx"),
            "FRONT_PORT": self.ports.nginx,
            "STOREFRONT_PORT": self.ports.storefront,
            "CATALOGUE_PORT": self.ports.catalogue,
            "PRICING_PORT": self.ports.pricing,
        }
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        (run_dir / "nginx.conf").write_text(text)

    def _spawn(self, service: str, command: list[str]) -> None:
        environment = {
            **os.environ,
            "STOREFRONT_PORT": str(self.ports.storefront),
            "CATALOGUE_PORT": str(self.ports.catalogue),
            "PRICING_PORT": str(self.ports.pricing),
            "DEAD_PORT": str(self.ports.dead),
            "ACCESS_LOG": str(self.access_log_path(service)),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        environment.pop("OTEL_SERVICE_NAME", None)
        if service != "nginx":
            environment["OTEL_SERVICE_NAME"] = service
        # setpriv: a service never outlives us, even if we are killed. A session of its own: Ctrl-C in the
        # terminal reaches us alone, and we end the services in order.
        with (self.log_dir / f"{service}.log").open("wb") as log:
            self.processes[service] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )


def _find_program(name: str) -> str:
    """Like shutil.which, but /usr/sbin, where Debian has nginx, counts even if it is not on PATH."""
    directories = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/local/bin", "/usr/bin", "/usr/sbin"]
    found = (Path(directory) / name for directory in directories if directory)
    return next((str(path) for path in found if os.access(path, os.X_OK)), f"/usr/bin/{name}")


def up(base_port: int, log_dir: Path) -> None:
    """Run the shop until SIGTERM or SIGINT. Raises ShopError if a service does not start or ends."""
    caught: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: caught.append(got))
    with Shop(base_port, log_dir) as shop:
        print(f"the shop is open at {shop.url}; access logs are in {shop.log_dir}", flush=True)
        while not caught:
            shop.check()
            time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the demo shop.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("up", help="start all services and stay until SIGTERM or Ctrl-C")
    command.add_argument("--port", type=int, default=18080, help="nginx's port; four more follow it")
    command.add_argument("--logs", type=Path, default=BUILT / "logs", help="directory for the logs")
    options = parser.parse_args()
    try:
        up(options.port, options.logs)
    except ShopError as error:
        print(f"shop: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
