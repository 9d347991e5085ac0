"""HTTPS through a tunnel that is TLS too, client and server in one: `tls_nested.py PORT FOLDER GO DONE LAYERS`.

Ten requests, each on a connection of its own, once the file GO exists; then the file DONE is made.
"""

import socket
import ssl
import sys
import threading
import time
from pathlib import Path

PORT, FOLDER = int(sys.argv[1]), Path(sys.argv[2])
GO, DONE = Path(sys.argv[3]), Path(sys.argv[4])
LAYERS = int(sys.argv[5])
SERVER = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
SERVER.load_cert_chain(FOLDER / "cert.pem", FOLDER / "key.pem")
CLIENT = ssl.create_default_context(cafile=str(FOLDER / "cert.pem"))


class Inner:
    """TLS whose ciphertext goes through another TLS socket, or through one of these."""

    def __init__(self, outer, context, **options):
        self.outer = outer
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **options)
        self.call(self.tls.do_handshake)

    def call(self, function, *arguments):
        while True:
            try:
                result = function(*arguments)
            except ssl.SSLWantReadError:
                self.flush()
                self.incoming.write(self.outer.recv(65536))
            else:
                self.flush()
                return result

    def recv(self, size):
        return self.call(self.tls.read, size)

    def sendall(self, data):
        self.call(self.tls.write, data)

    def flush(self):
        if pending := self.outgoing.read():
            self.outer.sendall(pending)


def innermost(outer, context, **options):
    for _ in range(LAYERS - 1):
        outer = Inner(outer, context, **options)
    return outer


def serve(listener):
    while True:
        plain, _ = listener.accept()
        with SERVER.wrap_socket(plain, server_side=True) as outer:
            inner = innermost(outer, SERVER, server_side=True)
            assert inner.recv(4096).startswith(b"GET ")
            inner.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


listener = socket.create_server(("127.0.0.1", PORT))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
while not GO.exists():
    time.sleep(0.01)
for number in range(10):
    with (
        socket.create_connection(("127.0.0.1", PORT)) as plain,
        CLIENT.wrap_socket(plain, server_hostname="localhost") as outer,
    ):
        inner = innermost(outer, CLIENT, server_hostname="localhost")
        inner.sendall(f"GET /inner/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert b"200 OK" in inner.recv(4096)
DONE.touch()
time.sleep(600)
