"""The demo shop: nginx in front of a Flask storefront, behind that services in Go, Node and Python, HTTP and gRPC.

`python demo_services/shop.py up` starts all of it and stays until SIGTERM or Ctrl-C. Tests use `Shop` as a
context manager. Only the standard library is needed; `make services` builds what is started here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
BUILT = HERE.parent / "build" / "demo"
BUILT_IN_PLACE = (
    HERE / "node_express" / "node_modules" / "express",
    HERE / "node_grpc" / "node_modules" / "@grpc",
    HERE / "python_flask" / "shop_pb2_grpc.py",
    HERE / "python_grpc" / "shop_pb2_grpc.py",
)
"""What `make services` puts beside the services' sources."""

LISTEN = "0A"


class ShopError(Exception):
    """The shop cannot be started or has lost a service; the text is one sentence for the user."""


class Ports(NamedTuple):
    """Ten ports in a row, each named after the service that listens there; on those that end in `_tls` with TLS.

    Nothing ever listens on `dead`.
    """

    nginx: int
    storefront: int
    catalogue: int
    pricing: int
    dead: int
    nginx_tls: int
    pricing_tls: int
    delivery: int
    warehouse: int
    courier: int

    @classmethod
    def from_base(cls, base: int) -> Ports:
        return cls(*range(base, base + len(cls._fields)))

    def missing(self) -> dict[str, int]:
        """The ports by name on which nobody listens yet, and somebody will."""
        taken = listening_ports()
        return {name: port for name, port in self._asdict().items() if name != "dead" and port not in taken}


def listening_ports() -> set[int]:
    """TCP ports on which somebody listens here, on IPv4 or on IPv6: grpcio takes IPv4 on a socket of IPv6.

    Read from /proc rather than found out by connecting: a probe would be an exchange, or a refused
    connection, in the traces of whoever watches the shop.
    """
    tables = [path for path in map(Path, ("/proc/net/tcp", "/proc/net/tcp6")) if path.exists()]
    rows = [row.split() for table in tables for row in table.read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTEN}


class TlsFiles(NamedTuple):
    """The shop's certificate with its key, and the directory with its own copy of OpenSSL."""

    certificate: Path
    key: Path
    libraries: Path


def prepare_tls(directory: Path = BUILT / "tls") -> TlsFiles:
    """Make what the shop's TLS needs in `directory`, where it is not there yet. Raises ShopError.

    The copy of OpenSSL is for the agent: a probe in a library's file is hit by every program that maps the file,
    and programs that are not of the shop must not be touched.
    """
    files = TlsFiles(directory / "cert.pem", directory / "key.pem", directory / "libraries")
    files.libraries.mkdir(parents=True, exist_ok=True)
    try:
        if not files.certificate.exists():
            _make_certificate(files)
        for library in _openssl_of(_find_program("nginx")):
            _copy_if_new(library, files.libraries / library.name)
    except subprocess.CalledProcessError as error:
        raise ShopError(
            f"the shop's TLS cannot be prepared: {Path(error.cmd[0]).name} says {error.stderr.strip()}"
        ) from error
    except OSError as error:
        raise ShopError(f"the shop's TLS cannot be prepared: {error}") from error
    return files


def _make_certificate(files: TlsFiles) -> None:
    command = [
        *("openssl", "req", "-x509", "-nodes", "-days", "3650"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
    ]
    with tempfile.TemporaryDirectory(dir=files.certificate.parent) as made:
        key, certificate = Path(made, "key.pem"), Path(made, "cert.pem")
        subprocess.run(
            [*command, "-keyout", str(key), "-out", str(certificate)],
            check=True,
            capture_output=True,
            text=True,
        )
        key.replace(files.key)
        certificate.replace(files.certificate)


def _openssl_of(program: str) -> list[Path]:
    """The files of OpenSSL's shared libraries that a program loads; none if it has its own inside."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    found = (line.split()[2] for line in listed.splitlines() if "=> /" in line)
    return [Path(path) for path in found if Path(path).name.startswith(("libssl.", "libcrypto."))]


def _copy_if_new(source: Path, target: Path) -> None:
    """A process may have the old copy mapped, so it is replaced and not written to."""
    have, want = target.stat() if target.exists() else None, source.stat()
    if have is None or (have.st_size, have.st_mtime_ns) != (want.st_size, want.st_mtime_ns):
        with tempfile.TemporaryDirectory(dir=target.parent.parent) as made:
            shutil.copy2(source, made)
            Path(made, target.name).replace(target)


class Shop:
    """The services as child processes, each with its access log in `log_dir`.

    Service names are `nginx`, `storefront`, `catalogue` and `pricing`, which speak HTTP, and `delivery`,
    `warehouse` and `courier`, which speak gRPC. Ports are `base_port` and the nine that follow it.
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
        return f"https://127.0.0.1:{self.ports.nginx_tls}"

    def pid(self, service: str) -> int:
        """The first process of a service; nginx's and gunicorn's workers are its children."""
        return self.processes[service].pid

    def access_log_path(self, service: str) -> Path:
        return self.log_dir / f"{service}.access.jsonl"

    def access_log(self, service: str) -> list[dict[str, Any]]:
        """What the service itself says it answered, in the order the requests ended.

        Each entry has `time` (Unix seconds, when the request ended), `method`, `status` and `duration`
        (seconds). One of HTTP has the `path` (no query), nginx's also the `scheme`; one of gRPC has the
        parcel's `id` and `messages`, how many were sent back.
        """
        with self.access_log_path(service).open() as lines:
            return [json.loads(line) for line in lines]

    def start(self) -> None:
        """Start the services, with empty access logs.

        Raises ShopError if one is not built, if a port is taken, or if a certificate cannot be made.
        """
        taken = sorted(listening_ports() & set(self.ports))
        if taken:
            raise ShopError(
                f"port {taken[0]} is in use by another program; choose other ports with --port, "
                "or end that program"
            )
        commands = self._commands()
        for file in [*(Path(command[0]) for command in commands.values()), *BUILT_IN_PLACE]:
            if not file.exists():
                raise ShopError(f"{file} does not exist; build the demo services with `make services`")
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self._tls = prepare_tls()
        self._prepare_nginx()
        for service, command in commands.items():
            self.access_log_path(service).write_bytes(b"")
            self._spawn(service, command)

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until all services listen; they answer from then on. Raises ShopError if one does not."""
        deadline = time.monotonic() + timeout
        while missing := self.ports.missing():
            self.check()
            if time.monotonic() > deadline:
                name, port = next(iter(missing.items()))
                raise ShopError(
                    f"nothing listens on port {port} after {timeout:.0f} s; "
                    f"the reason is in {self._log_path(name.removesuffix('_tls'))}"
                )
            time.sleep(0.05)

    def check(self) -> None:
        """Raise ShopError if a service has ended by itself."""
        for service, process in self.processes.items():
            if process.poll() is not None:
                raise ShopError(
                    f"{service} ended with exit status {process.returncode}; "
                    f"the reason is in {self._log_path(service)}"
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

    def _log_path(self, service: str) -> Path:
        return self.log_dir / f"{service}.log"

    def _commands(self) -> dict[str, list[str]]:
        """How each service is started; nobody comes before those that it calls."""
        run_dir = self.log_dir / "nginx"
        as_root = ["-g", "user root;"] if os.geteuid() == 0 else []
        return {
            "pricing": [str(BUILT / "pricing")],
            "courier": [_find_program("node"), str(HERE / "node_grpc" / "courier.js")],
            "warehouse": [
                str(BUILT / "warehouse-venv" / "bin" / "python"),
                str(HERE / "python_grpc" / "warehouse.py"),
            ],
            "delivery": [str(BUILT / "delivery")],
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
            "FRONT_TLS_PORT": self.ports.nginx_tls,
            "TLS_CERT": self._tls.certificate,
            "TLS_KEY": self._tls.key,
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
            **{f"{name.upper()}_PORT": str(port) for name, port in self.ports._asdict().items()},
            "TLS_CERT": str(self._tls.certificate),
            "TLS_KEY": str(self._tls.key),
            "LD_LIBRARY_PATH": f"{self._tls.libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}",
            "ACCESS_LOG": str(self.access_log_path(service)),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        environment.pop("OTEL_SERVICE_NAME", None)
        if service != "nginx":
            environment["OTEL_SERVICE_NAME"] = service
        # setpriv: a service never outlives us, even if we are killed. A session of its own: Ctrl-C in the
        # terminal reaches us alone, and we end the services in order.
        with self._log_path(service).open("wb") as log:
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
        print(
            f"the shop is open at {shop.url} and, without TLS, at port {shop.ports.nginx}; "
            f"access logs are in {shop.log_dir}",
            flush=True,
        )
        while not caught:
            shop.check()
            time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the demo shop.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("up", help="start all services and stay until SIGTERM or Ctrl-C")
    command.add_argument("--port", type=int, default=18080, help="nginx's port; nine more follow it")
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
