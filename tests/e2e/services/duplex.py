"""One connection, four threads: `duplex.py client|server PORT LOG HOW`.

The client's writer sends 1,500 requests without waiting, its reader reads the responses; the server's reader
hands the requests to its writer. LOG gets what was answered, in the end. HOW: `exact` (a read takes a head, or the
content, and no byte more), or `buffered` (a read takes whatever is there).
"""

import functools
import json
import queue
import random
import socket
import sys
import threading
from pathlib import Path

COUNT = 1500
SIZES = [0, 0, 5, 300, 3000, 9000]
HOW = sys.argv[4]
HEAD = 80  # bytes of every head
STREAM = {}


def client(port):
    rng = random.Random(1)
    connection = socket.create_connection(("127.0.0.1", port))
    window = threading.Semaphore(100)

    def write():
        for i in range(COUNT):
            window.acquire()
            body = b"q" * rng.choice(SIZES)
            connection.sendall(message(b"POST /d/%d HTTP/1.1" % i, body))

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(COUNT):
        read_message(connection)
        window.release()
    writer.join()
    return []


def server(port):
    rng = random.Random(2)
    listener = socket.create_server(("127.0.0.1", port))
    connection, _ = listener.accept()
    while not connection.recv(1, socket.MSG_PEEK):  # somebody only looked whether it listens
        connection, _ = listener.accept()
    asked = queue.Queue()
    log = []

    def write():
        while (request := asked.get()) is not None:
            status = rng.choice([200, 404])
            body = b"r" * rng.choice(SIZES)
            connection.sendall(message(b"HTTP/1.1 %d X" % status, body))
            log.append({"path": request[0], "status": status, "received": request[1], "sent": len(body)})

    writer = threading.Thread(target=write)
    writer.start()
    while request := read_message(connection):
        asked.put(request)
    asked.put(None)
    writer.join()
    return log


def message(start, body):
    fields = b"Content-Length: %d\r\nPad: " % len(body)
    return (start + b"\r\n" + fields).ljust(HEAD - 4, b"p") + b"\r\n\r\n" + body


def read_message(connection):
    """Path (or status) and size of the content; None at the end."""
    read = STREAM.setdefault(connection, connection.makefile("rb")).read
    if HOW == "exact":
        read = functools.partial(receive, connection)
    head = read(HEAD)
    if not head:
        return None
    length = int(head.partition(b"Length: ")[2].partition(b"\r\n")[0])
    read(length)
    return head.split(b" ")[1].decode(), length


def receive(connection, size):
    return connection.recv(size, socket.MSG_WAITALL) if size else b""


def main():
    log = {"client": client, "server": server}[sys.argv[1]](int(sys.argv[2]))
    Path(sys.argv[3]).write_text("".join(json.dumps(entry) + "\n" for entry in log))


main()
