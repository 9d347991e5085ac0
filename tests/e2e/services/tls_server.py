"""An HTTPS/1.1 server: `tls_server.py PORT FOLDER LOG threads|asyncio|uvloop`; FOLDER holds cert.pem and key.pem.

Each request is logged as a JSON line with the client's port. It answers with as many bytes as the path's last part
says, and closes the connection if the client asks for that.
"""

import asyncio
import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT = int(sys.argv[1])
FOLDER = Path(sys.argv[2])
LOG = Path(sys.argv[3]).open("a", buffering=1)  # noqa: SIM115
LOCK = threading.Lock()
CONTEXT = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
CONTEXT.load_cert_chain(FOLDER / "cert.pem", FOLDER / "key.pem")


def log(path, peer, received, reused):
    with LOCK:
        entry = {"path": path.partition("?")[0], "peer": peer, "received": received, "reused": reused}
        LOG.write(json.dumps(entry) + "\n")


def body_of(path):
    last = path.partition("?")[0].rpartition("/")[2]
    return b"SECRET-ANSWER" + b"x" * (int(last) if last.isdigit() else 0)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self):
        received = len(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        body = body_of(self.path)
        log(self.path, self.client_address[1], received, self.connection.session_reused)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *_arguments):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, *_arguments):
        pass  # a client that connects and goes

    def finish_request(self, request, client_address):
        with CONTEXT.wrap_socket(request, server_side=True) as wrapped:
            self.RequestHandlerClass(wrapped, client_address, self)


async def serve(reader, writer):
    try:
        await conversation(reader, writer)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def conversation(reader, writer):
    peer = writer.get_extra_info("peername")[1]
    reused = writer.get_extra_info("ssl_object").session_reused
    while line := await reader.readline():
        length, close = 0, False
        while (field := (await reader.readline()).strip().lower()) != b"":
            if field.startswith(b"content-length:"):
                length = int(field.split(b":")[1])
            close = close or field == b"connection: close"
        received = len(await reader.readexactly(length))
        path = line.split()[1].decode()
        log(path, peer, received, reused)
        body = body_of(path)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        if close:
            return


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", PORT, ssl=CONTEXT, backlog=1024)
    await server.serve_forever()


if sys.argv[4] == "uvloop":
    import uvloop

    uvloop.install()
if sys.argv[4] in ("asyncio", "uvloop"):
    asyncio.run(main())
else:
    Server(("127.0.0.1", PORT), Handler).serve_forever()
