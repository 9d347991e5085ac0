"""One connection, four threads: `duplex.py client|server PORT LOG`.

The client's writer sends 1,500 requests without waiting, its reader reads the responses; the server's reader
hands the requests to its writer. LOG gets what was answered, in the end.
"""

import json
import queue
import random
import socket
import sys
import threading
from pathlib import Path

COUNT = 1500
SIZES = [0, 0, 5, 300, 3000, 9000]


def client(port):
    rng = random.Random(1)
    connection = socket.create_connection(("127.0.0.1", port))
    window = threading.Semaphore(100)
    stream = connection.makefile("rb")

    def write():
        for i in range(COUNT):
            window.acquire()
            body = b"q" * rng.choice(SIZES)
            connection.sendall(b"POST /d/%d HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (i, len(body)) + body)

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(COUNT):
        read_message(stream)
        window.release()
    writer.join()
    return []


def server(port):
    rng = random.Random(2)
    listener = socket.create_server(("127.0.0.1", port))
    connection, _ = listener.accept()
    while not connection.recv(1, socket.MSG_PEEK):  # somebody only looked whether it listens
        connection, _ = listener.accept()
    stream = connection.makefile("rb")
    asked = queue.Queue()
    log = []

    def write():
        while (request := asked.get()) is not None:
            status = rng.choice([200, 404])
            body = b"r" * rng.choice(SIZES)
            connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
            log.append({"path": request[0], "status": status, "received": request[1], "sent": len(body)})

    writer = threading.Thread(target=write)
    writer.start()
    while message := read_message(stream):
        asked.put(message)
    asked.put(None)
    writer.join()
    return log


def read_message(stream):
    start = stream.readline()
    if not start:
        return None
    length = 0
    while (line := stream.readline()) != b"\r\n":
        length = int(line.partition(b":")[2])
    stream.read(length)
    return start.split(b" ")[1].decode(), length


def main():
    log = {"client": client, "server": server}[sys.argv[1]](int(sys.argv[2]))
    Path(sys.argv[3]).write_text("".join(json.dumps(entry) + "\n" for entry in log))


main()
