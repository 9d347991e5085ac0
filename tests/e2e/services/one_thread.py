"""One thread, an event loop, blocking calls: `one_thread.py PORT BACKEND LOG`.

/large/N answers a megabyte; /call/N first asks the backend for the same path.
"""

import http.client
import selectors
import socket
import sys
from pathlib import Path

BACKEND = http.client.HTTPConnection("127.0.0.1", int(sys.argv[2]))
LOG = Path(sys.argv[3]).open("a", buffering=1)  # noqa: SIM115


def answer(connection):
    head = connection.recv(4096)
    if not head:
        return False
    path = head.split(b" ")[1].decode()
    body = b"l" * 1_000_000
    if path.startswith("/call/"):
        BACKEND.request("GET", path)
        body = BACKEND.getresponse().read()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    LOG.write(path + "\n")
    return True


def main():
    selector = selectors.DefaultSelector()
    server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    selector.register(server, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is server:
                selector.register(server.accept()[0], selectors.EVENT_READ)
            elif not answer(key.fileobj):
                selector.unregister(key.fileobj)
                key.fileobj.close()


main()
