"""Many threads that wait in a socket call: `blocked.py serve ADDRESS LOG`, `blocked.py ask ADDRESS LOG COUNT`.

`serve` has a blocking thread for each connection. `ask` opens COUNT connections, so that as many threads wait for
a request; then asks on one after the other; then on all at once, without reading, for answers that no buffer holds,
so that as many threads wait to send; then once more on one after the other. Both log each request as a JSON line.
ADDRESS is a port on 127.0.0.1, or the name of a Unix socket. Paths are /size/BYTES/ROUND/CONNECTION.
"""

import json
import socket
import sys
import threading
import time
from pathlib import Path

ROLE, ADDRESS = sys.argv[1:3]
LOG = Path(sys.argv[3]).open("a", buffering=1)  # noqa: SIM115
UNIX = "/" in ADDRESS
WHERE = ADDRESS if UNIX else ("127.0.0.1", int(ADDRESS))
FAMILY = socket.AF_UNIX if UNIX else socket.AF_INET
LARGE = 1_000_000
LOCK = threading.Lock()


def log(path):
    with LOCK:
        LOG.write(json.dumps({"path": path}) + "\n")


def serve_connection(connection):
    while request := connection.recv(4096):
        path = request.split()[1].decode()
        size = int(path.split("/")[2])
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        log(path)
    connection.close()


def serve():
    with socket.socket(FAMILY) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(WHERE)
        listener.listen(1024)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
            threading.Thread(target=serve_connection, args=(connection,), daemon=True).start()


def connect():
    connection = socket.socket(FAMILY)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    connection.connect(WHERE)
    return connection


def request(connection, path):
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: blocked\r\n\r\n".encode())


def read_answer(connection, path):
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(65_536)
    left = len(got.split(b"\r\n\r\n", 1)[0]) + 4 + int(path.split("/")[2]) - len(got)
    while left:
        piece = connection.recv(65_536)
        assert piece
        left -= len(piece)
    log(path)


def ask(count):
    connections = [connect() for _ in range(count)]
    time.sleep(0.5)
    for number, connection in enumerate(connections):
        path = f"/size/1000/first/{number}"
        request(connection, path)
        read_answer(connection, path)
    paths = [f"/size/{LARGE}/blocked/{number}" for number in range(count)]
    for connection, path in zip(connections, paths, strict=True):
        request(connection, path)
    time.sleep(0.5)
    for connection, path in zip(connections, paths, strict=True):
        read_answer(connection, path)
    for number, connection in enumerate(connections):
        path = f"/size/10/last/{number}"
        request(connection, path)
        read_answer(connection, path)
        connection.close()


if ROLE == "serve":
    serve()
else:
    ask(int(sys.argv[4]))
