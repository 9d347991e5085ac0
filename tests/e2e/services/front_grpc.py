"""Servers that call a gRPC and an HTTP service for each request they serve.

front_grpc.py HOW PORT LOG GRPC_PORT HTTP_PORT THREADS

HOW: `pool` (gRPC, a pool of threads), `aio` (gRPC on asyncio), `aio-tasks` (the same; handlers leave their calls to
tasks that they make, in several ways), `http` (HTTP/1.1, a thread for each connection), `http-aio` (HTTP/1.1 on
asyncio).
A request names a number (`/shop.Front/serve-NUMBER` or GET /serve-NUMBER). The handler calls
`/shop.Back/first-NUMBER`, GET /second-NUMBER (not on asyncio) and `/shop.Back/third-NUMBER`, each on a connection
that all handlers (HTTP: that one handler's thread) share, works a little in between, and logs one JSON line: its
number and thread.

front_grpc.py back PORT LOG: the gRPC service that is called; it logs the method of each call.
front_grpc.py client PORT LOG COUNT CONCURRENCY: calls a front; one channel for all.
"""

from __future__ import annotations

import asyncio
import contextvars
import http.client
import json
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc


class Log:
    """One JSON line for each request."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("a", buffering=1)  # noqa: SIM115
        self._lock = threading.Lock()

    def write(self, **entry: object) -> None:
        entry["tid"] = threading.get_native_id()
        with self._lock:
            self._file.write(json.dumps(entry) + "\n")


class Calls:
    """What a handler calls."""

    def __init__(self, grpc_port: int, http_port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}")
        self._http_port = http_port
        self._local = threading.local()

    def all(self, number: str) -> None:
        work()
        self.channel.unary_unary(f"/shop.Back/first-{number}")(b"q", timeout=60)
        work()
        self.get(f"/second-{number}")
        work()
        self.channel.unary_unary(f"/shop.Back/third-{number}")(b"q", timeout=60)
        work()

    def get(self, path: str) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=60)
            self._local.connection = connection
        connection.request("GET", path)
        connection.getresponse().read()


def work() -> None:
    if random.random() < 0.5:
        time.sleep(random.uniform(0, 0.004))


class Front(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, log: Log, calls: Calls) -> None:
        self._log = log
        self._calls = calls

    def service(self, details: Any) -> Any:
        number = details.method.rpartition("-")[2]

        def serve(_request: bytes, _context: Any) -> bytes:
            self._calls.all(number)
            self._log.write(number=number)
            return b"done"

        return grpc.unary_unary_rpc_method_handler(serve)


class AioCalls:
    """What a handler on asyncio calls."""

    def __init__(self, grpc_port: int) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}")
        self._later: set[asyncio.Task[None]] = set()

    async def all(self, number: str) -> None:
        for which in ("first", "third"):
            await self._call(which, number)

    async def all_in_tasks(self, number: str) -> None:
        first, third = self._call("first", number), self._call("third", number)
        if int(number) % 4 == 0:
            await asyncio.gather(first, third)
        elif int(number) % 4 == 1:
            await asyncio.wait_for(asyncio.create_task(first), 60)
            await asyncio.create_task(third, context=contextvars.copy_context().copy())
        elif int(number) % 4 == 2:
            await first
            later = asyncio.create_task(third)
            self._later.add(later)
            later.add_done_callback(self._later.discard)
        else:
            stream = self._channel.unary_stream
            for which in ("first", "third"):
                async for _ in stream(f"/shop.Back/{which}-{number}")(b"q", timeout=60):
                    await asyncio.sleep(random.uniform(0, 0.004))
            first.close()
            third.close()

    async def _call(self, which: str, number: str) -> None:
        await asyncio.sleep(random.uniform(0, 0.004))
        await self._channel.unary_unary(f"/shop.Back/{which}-{number}")(b"q", timeout=60)


class AioFront(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, log: Log, call: Callable[[str], Awaitable[None]]) -> None:
        self._log = log
        self._call = call

    def service(self, details: Any) -> Any:
        number = details.method.rpartition("-")[2]

        async def serve(_request: bytes, _context: Any) -> bytes:
            await self._call(number)
            self._log.write(number=number)
            return b"done"

        return grpc.unary_unary_rpc_method_handler(serve)


class Back(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, log: Log) -> None:
        self._log = log

    def service(self, details: Any) -> Any:
        def serve(_request: bytes, _context: Any) -> bytes:
            work()
            self._log.write(method=details.method[1:])
            return b"done"

        return grpc.unary_unary_rpc_method_handler(serve)


def serve_grpc(port: int, handler: Any, threads: int) -> None:
    server = grpc.server(ThreadPoolExecutor(threads), handlers=(handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


async def serve_aio(port: int, log: Log, grpc_port: int, in_tasks: bool) -> None:
    calls = AioCalls(grpc_port)
    server = grpc.aio.server(handlers=(AioFront(log, calls.all_in_tasks if in_tasks else calls.all),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def serve_http_aio(port: int, log: Log, grpc_port: int) -> None:
    calls = AioCalls(grpc_port)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            while (await reader.readline()).strip():
                pass
            number = line.split()[1].decode().rpartition("-")[2]
            await calls.all(number)
            log.write(number=number)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


def serve_http(port: int, log: Log, calls: Calls) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            number = self.path.rpartition("-")[2]
            calls.all(number)
            log.write(number=number)
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"done")

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

    Server(("127.0.0.1", port), Handler).serve_forever()


def run_client(port: int, log: Log, count: int, concurrency: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, ThreadPoolExecutor(concurrency) as pool:
        grpc.channel_ready_future(channel).result(30)

        def one(number: int) -> None:
            assert channel.unary_unary(f"/shop.Front/serve-{number}")(b"q", timeout=60) == b"done"
            log.write(number=str(number))

        list(pool.map(one, range(count)))
        time.sleep(0.2)


def main() -> None:
    how, port, log = sys.argv[1], int(sys.argv[2]), Log(sys.argv[3])
    numbers = [int(text) for text in sys.argv[4:]]
    if how == "back":
        serve_grpc(port, Back(log), 64)
    elif how == "client":
        run_client(port, log, *numbers)
    elif how == "pool":
        serve_grpc(port, Front(log, Calls(*numbers[:2])), numbers[2])
    elif how in ("aio", "aio-tasks"):
        asyncio.run(serve_aio(port, log, numbers[0], how == "aio-tasks"))
    elif how == "http-aio":
        asyncio.run(serve_http_aio(port, log, numbers[0]))
    else:
        serve_http(port, log, Calls(*numbers[:2]))


if __name__ == "__main__":
    main()
