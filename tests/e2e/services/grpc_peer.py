"""A gRPC server or client of grpcio, threaded or asyncio, without generated code: messages are plain bytes.

grpc_peer.py server|aio-server PORT LOG
grpc_peer.py client|aio-client PORT LOG COUNT CONCURRENCY [KIND]

A method is named KIND-NUMBER, so that every call of a run can be told from all others: its request has NUMBER
bytes, and each message of its response twice as many. Kinds: unary, server (NUMBER % 5 messages back), client
(NUMBER % 5 messages), both, fail (status NUMBER % 16 + 1), halfway (the same, after one message), slow (never
answers; the client gives up after 4 s), cancel. Without a KIND the client takes all but halfway in turn. A KIND
same is unary with the number 7. Both log one line for a call: method, status; a server that answers logs how many
messages it received, too. With PAUSE in the environment a client waits so many seconds after each call, on each of
its workers.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

KINDS = ("unary", "server", "client", "both", "fail", "slow", "cancel")
PAUSE = float(os.environ.get("PAUSE", "0"))
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Log:
    """One JSON line for each call."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("a", buffering=1)  # noqa: SIM115
        self._lock = threading.Lock()

    def write(self, method: str, status: str, **more: int) -> None:
        with self._lock:
            self._file.write(json.dumps({"method": method, "status": status, **more}) + "\n")


def parts(method: str) -> tuple[str, int]:
    kind, _, number = method.rpartition("/")[2].partition("-")
    return kind, int(number)


def answer(kind: str, number: int) -> list[bytes]:
    return [b"r" * (2 * number)] * (number % 5 if kind in ("server", "both") else 1)


class Server(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, log: Log, asynchronous: bool) -> None:
        self._log = log
        self._asynchronous = asynchronous

    def service(self, details: Any) -> Any:
        call = details.method[1:], *parts(details.method)

        def serve(requests: Any, context: Any) -> Iterator[bytes]:
            yield from self._serve_sync(*call, requests, context)

        async def serve_async(requests: Any, context: Any) -> AsyncIterator[bytes]:
            async for message in self._serve_async(*call, requests, context):
                yield message

        return grpc.stream_stream_rpc_method_handler(serve_async if self._asynchronous else serve)

    def _serve_sync(
        self, method: str, kind: str, number: int, requests: Any, context: Any
    ) -> Iterator[bytes]:
        if kind in ("slow", "cancel"):
            gone = threading.Event()
            context.add_callback(gone.set)
            gone.wait(20)
            self._log.write(method, "CANCELLED")
            return
        received = 0
        for message in requests:
            assert len(message) == number
            received += 1
        if kind in ("fail", "halfway"):
            if kind == "halfway":
                yield b"r" * (2 * number)
            self._log.write(method, CODES[number % 16 + 1].name)
            context.abort(CODES[number % 16 + 1], "as asked")
        yield from answer(kind, number)
        self._log.write(method, "OK", received=received)

    async def _serve_async(
        self, method: str, kind: str, number: int, requests: Any, context: Any
    ) -> AsyncIterator[bytes]:
        try:
            if kind in ("slow", "cancel"):
                await asyncio.sleep(20)
            received = 0
            async for message in requests:
                assert len(message) == number
                received += 1
            if kind in ("fail", "halfway"):
                if kind == "halfway":
                    yield b"r" * (2 * number)
                self._log.write(method, CODES[number % 16 + 1].name)
                await context.abort(CODES[number % 16 + 1], "as asked")
            for message in answer(kind, number):
                yield message
            self._log.write(method, "OK", received=received)
        except asyncio.CancelledError:
            self._log.write(method, "CANCELLED")
            raise


def requests_of(kind: str, number: int) -> list[bytes]:
    return [b"q" * number] * (number % 5 if kind in ("client", "both") else 1)


def timeout_of(kind: str) -> float:
    return 4 if kind == "slow" else 60


def run_server(port: int, log: Log) -> None:
    server = grpc.server(ThreadPoolExecutor(128), handlers=(Server(log, False),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


async def run_aio_server(port: int, log: Log) -> None:
    server = grpc.aio.server(handlers=(Server(log, True),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def run_client(port: int, log: Log, jobs: list[tuple[str, int]], concurrency: int) -> None:
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        ThreadPoolExecutor(concurrency) as pool,
    ):
        grpc.channel_ready_future(channel).result(30)

        def one(job: tuple[str, int]) -> None:
            kind, number = job
            method = f"shop.Cart/{kind}-{number}"
            call = channel.stream_stream("/" + method)(
                iter(requests_of(kind, number)), timeout=timeout_of(kind)
            )
            if kind == "cancel":
                threading.Timer(0.1, call.cancel).start()
            try:
                assert list(call) == answer(kind, number)
                log.write(method, "OK")
            except grpc.RpcError:
                log.write(method, call.code().name)
            time.sleep(PAUSE)

        list(pool.map(one, jobs))
        time.sleep(0.2)


async def run_aio_client(port: int, log: Log, jobs: list[tuple[str, int]], concurrency: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
        limit = asyncio.Semaphore(concurrency)

        async def one(kind: str, number: int) -> None:
            method = f"shop.Cart/{kind}-{number}"
            async with limit:
                call = channel.stream_stream("/" + method)(
                    iter(requests_of(kind, number)), timeout=timeout_of(kind)
                )
                if kind == "cancel":
                    asyncio.get_running_loop().call_later(0.1, call.cancel)
                try:
                    assert [message async for message in call] == answer(kind, number)
                    log.write(method, "OK")
                except (grpc.RpcError, asyncio.CancelledError):
                    log.write(method, (await call.code()).name)

        await asyncio.gather(*(one(*job) for job in jobs))
        await asyncio.sleep(0.2)


def main() -> None:
    role, port, log = sys.argv[1], int(sys.argv[2]), Log(sys.argv[3])
    if role == "server":
        run_server(port, log)
    elif role == "aio-server":
        asyncio.run(run_aio_server(port, log))
    else:
        count, concurrency = int(sys.argv[4]), int(sys.argv[5])
        kinds = sys.argv[6:] or KINDS
        jobs = [(kinds[i % len(kinds)], i) for i in range(count)]
        jobs = [(kind, 7 if kind == "same" else number) for kind, number in jobs]
        if role == "client":
            run_client(port, log, jobs, concurrency)
        else:
            asyncio.run(run_aio_client(port, log, jobs, concurrency))


if __name__ == "__main__":
    main()
