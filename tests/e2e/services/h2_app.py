"""An ASGI application for hypercorn, and a client of it (httpx), of HTTP/2 without TLS.

h2_app.py server PORT LOG
h2_app.py client PORT LOG COUNT CONCURRENCY

A path is /STATUS/SIZE/NUMBER: the answer has that status and SIZE bytes, in pieces of 1,000 if NUMBER is even. A
request with an odd NUMBER is a POST of so many bytes. Both log one line for each exchange: path, status.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from hypercorn.asyncio import serve
from hypercorn.config import Config

STATUSES, SIZES, PIECE = (200, 404, 503, 201), (0, 10, 2500, 40_000), 1000


class Log:
    """One JSON line for each exchange."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("a", buffering=1)  # noqa: SIM115

    def write(self, path: str, status: int) -> None:
        self._file.write(json.dumps({"path": path, "status": status}) + "\n")


def application(log: Log) -> Callable[..., Awaitable[None]]:
    async def answer(
        scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[..., Any]
    ) -> None:
        if scope["type"] != "http":
            return
        status, size, number = map(int, scope["path"].strip("/").split("/"))
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"text/plain")]
        if number % 2:
            headers.append((b"content-length", str(size).encode()))
        log.write(scope["path"], status)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        step = size or 1 if number % 2 else PIECE
        for at in range(0, size, step):
            body = b"r" * min(step, size - at)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return answer


async def run_server(port: int, log: Log) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    await serve(application(log), config)  # type: ignore[arg-type]


async def run_client(port: int, log: Log, count: int, concurrency: int) -> None:
    limit = asyncio.Semaphore(concurrency)
    base = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=base, http1=False, http2=True, timeout=60) as client:

        async def one(number: int) -> None:
            size = SIZES[number // 4 % 4]
            path = f"/{STATUSES[number % 4]}/{size}/{number}"
            async with limit:
                if number % 2:
                    response = await client.post(path, content=b"q" * number)
                else:
                    response = await client.get(path)
                assert len(response.content) == size
                log.write(path, response.status_code)

        await asyncio.gather(*(one(number) for number in range(count)))


def main() -> None:
    role, port, log = sys.argv[1], int(sys.argv[2]), Log(sys.argv[3])
    if role == "server":
        asyncio.run(run_server(port, log))
    else:
        asyncio.run(run_client(port, log, int(sys.argv[4]), int(sys.argv[5])))


if __name__ == "__main__":
    main()
