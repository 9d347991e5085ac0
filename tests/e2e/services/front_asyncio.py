"""An asyncio HTTP/1.1 server that calls others: `front_asyncio.py PORT LOG`; paths as in front_threads.py."""

import asyncio
import json
import sys
from pathlib import Path

PORT = int(sys.argv[1])
LOG = Path(sys.argv[2]).open("a", buffering=1)  # noqa: SIM115


async def call(port, path):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    response = await reader.read()
    writer.close()
    return int(response.split()[1])


async def serve(reader, writer):
    while line := await reader.readline():
        while (await reader.readline()).strip():
            pass
        _, _, ports, rest = line.split()[1].decode().split("/", 3)
        for port in ports.split(","):
            result = await call(int(port), f"/{rest}")
            LOG.write(json.dumps({"port": int(port), "path": f"/{rest}", "result": result}) + "\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
        await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", PORT)
    await server.serve_forever()


asyncio.run(main())
