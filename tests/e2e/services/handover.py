"""A server whose connections change hands: `handover.py HOW WHERE LOG`, WHERE a port or the path of a Unix socket.

HOW: `prefork` (children accept), `fork` (the parent accepts, a child for each connection answers), `pass` (the
parent accepts and sends the descriptor to a worker), `dup` (answers by a copy of the descriptor, the first one
is closed). LOG gets a JSON line for each request: its path and who answered it. The path /die kills the process
before it answers.
"""

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path

HOW, WHERE, LOG = sys.argv[1], sys.argv[2], Path(sys.argv[3]).open("a", buffering=1)  # noqa: SIM115
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def listen():
    if WHERE.isdigit():
        return socket.create_server(("127.0.0.1", int(WHERE)), backlog=64)
    server = socket.socket(socket.AF_UNIX)
    server.bind(WHERE)
    server.listen(64)
    return server


def answer(connection):
    head = b""
    while data := connection.recv(4096):
        head += data
        if not head.endswith(b"\r\n\r\n"):
            continue
        path = head.split(b" ")[1].decode()
        head = b""
        if path == "/die":
            os.kill(os.getpid(), signal.SIGKILL)
        if HOW == "dup":
            first, connection = connection, connection.dup()
            first.close()
        LOG.write(json.dumps({"path": path, "pid": os.getpid()}) + "\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer")
    connection.close()


def child(work, *arguments):
    pid = os.fork()
    if not pid:
        # Nobody else would end it when its parent is ended.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        work(*arguments)
        os._exit(0)
    return pid


def accept_all(server):
    while True:
        answer(server.accept()[0])


def receive_descriptors(channel):
    while True:
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        answer(socket.socket(fileno=descriptors[0]))


def main():
    server = listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    if HOW == "prefork":
        for _ in range(3):
            child(accept_all, server)
    if HOW in ("prefork", "dup"):
        accept_all(server)
    if HOW == "pass":
        child(receive_descriptors, theirs)
    while True:
        connection, _ = server.accept()
        if HOW == "pass":
            socket.send_fds(ours, [b"x"], [connection.fileno()])
        else:
            child(answer, connection)
        connection.close()


main()
