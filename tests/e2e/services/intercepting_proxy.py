"""A proxy that ends the TLS of its tunnels, and answers itself: `intercepting_proxy.py PORT FOLDER LOG`.

Its clients speak TLS to it, so it has two layers of TLS on each connection. FOLDER holds cert.pem and key.pem. Each
request in a tunnel is logged as a JSON line with the client's port. It answers with as many bytes as the path's
last part says.
"""

import asyncio
import json
import ssl
import sys
from pathlib import Path

PORT, FOLDER = int(sys.argv[1]), Path(sys.argv[2])
LOG = Path(sys.argv[3]).open("a", buffering=1)  # noqa: SIM115
CONTEXT = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
CONTEXT.load_cert_chain(FOLDER / "cert.pem", FOLDER / "key.pem")


async def serve(reader, writer):
    peer = writer.get_extra_info("peername")[1]
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.start_tls(CONTEXT)
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            LOG.write(json.dumps({"path": path, "peer": peer}) + "\n")
            body = b"x" * int(path.rpartition("/")[2])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", PORT, ssl=CONTEXT, backlog=1024)
    await server.serve_forever()


asyncio.run(main())
