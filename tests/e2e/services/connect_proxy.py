"""A proxy that knows CONNECT and nothing else: `connect_proxy.py PORT threads|asyncio [FOLDER]`.

With FOLDER, which holds cert.pem and key.pem, its clients speak TLS to it.
"""

import asyncio
import selectors
import socket
import socketserver
import ssl
import sys

CONTEXT = None
if len(sys.argv) > 3:
    CONTEXT = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    CONTEXT.load_cert_chain(f"{sys.argv[3]}/cert.pem", f"{sys.argv[3]}/key.pem")
MADE = b"HTTP/1.1 200 Connection established\r\n\r\n"


def target(head):
    host, _, port = head.split(b" ")[1].decode().partition(":")
    return host, int(port)


class Handler(socketserver.BaseRequestHandler):
    def setup(self):
        if CONTEXT:
            self.request = CONTEXT.wrap_socket(self.request, server_side=True)

    def handle(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.request.recv(4096)
        with socket.create_connection(target(head)) as there:
            self.request.sendall(MADE)
            self.tunnel(there)

    def tunnel(self, there):
        with selectors.DefaultSelector() as selector:
            selector.register(self.request, selectors.EVENT_READ, there)
            selector.register(there, selectors.EVENT_READ, self.request)
            while True:
                for key, _ in selector.select():
                    # As much as a TLS record holds: nothing stays behind in the TLS library.
                    data = key.fileobj.recv(65536)
                    if not data:
                        return
                    key.data.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


async def relay(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def serve(reader, writer):
    try:
        there = await asyncio.open_connection(*target(await reader.readuntil(b"\r\n\r\n")))
    except asyncio.IncompleteReadError:  # a look at the port
        return
    writer.write(MADE)
    await asyncio.gather(relay(reader, there[1]), relay(there[0], writer))


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), ssl=CONTEXT, backlog=1024)
    await server.serve_forever()


if sys.argv[2] == "asyncio":
    asyncio.run(main())
else:
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
