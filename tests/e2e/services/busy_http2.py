"""A client for services/grpcjs/busy.js that puts paths into the header table, which Node's own does not do.

busy_http2.py client PORT LOG HOW COUNT CONCURRENCY CONNECTIONS PAUSE_MS [FOLDER]: see there. HOW is `grpc`
(grpcio) or `http2` (httpx).
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import httpx

METHODS = 24
"""So few that the table holds all their paths and lengths."""

Call = Callable[[int], Awaitable[object]]


def connect_grpc(port: str, folder: Path | None) -> Call:
    options = [("grpc.use_local_subchannel_pool", 1)]
    if folder is None:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
    else:
        credentials = grpc.ssl_channel_credentials((folder / "cert.pem").read_bytes())
        channel = grpc.aio.secure_channel(f"localhost:{port}", credentials, options)

    async def call(number: int) -> None:
        try:
            await channel.unary_unary(f"/shop.Cart/same-{number}")(b"q" * number)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND, error  # noqa: PT017

    return call


def connect_http2(port: str, folder: Path | None) -> Call:
    trusted = ssl.create_default_context(cafile=folder and folder / "cert.pem")
    client = httpx.AsyncClient(http1=False, http2=True, verify=trusted, timeout=60)
    base = f"https://localhost:{port}" if folder else f"http://127.0.0.1:{port}"

    async def call(number: int) -> None:
        answer = await client.post(f"{base}/shop.Cart/same-{number}?secret={number}", content=b"q" * number)
        assert answer.status_code == 200

    return call


async def ask(calls: list[Call], log: Path, count: int, concurrency: int, pause: float) -> None:
    numbers = iter(range(count))
    with log.open("a", buffering=1) as file:

        async def work(call: Call) -> None:
            for number in numbers:
                await call(number % METHODS)
                file.write(json.dumps({"number": number % METHODS}) + "\n")
                await asyncio.sleep(pause * random.random())

        await asyncio.gather(*(work(calls[index % len(calls)]) for index in range(concurrency)))


async def main(
    port: str,
    log: str,
    how: str,
    count: str,
    concurrency: str,
    connections: str,
    pause: str,
    folder: str = "",
) -> None:
    connect = connect_grpc if how == "grpc" else connect_http2
    calls = [connect(port, Path(folder) if folder else None) for _ in range(int(connections))]
    await ask(calls, Path(log), int(count), int(concurrency), float(pause) / 1000)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[2:]))
