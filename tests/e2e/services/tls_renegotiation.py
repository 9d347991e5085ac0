"""HTTPS/1.1 on TLS 1.2 connections whose keys are negotiated again between requests and within them.

`tls_renegotiation.py server PORT FOLDER LOG`: before an answer to a path with "server" in it, it asks for a new
handshake. Each request is logged as a JSON line with the client's port.

`tls_renegotiation.py client PORT FOLDER LOG GO CONNECTIONS`: once the file GO exists, CONNECTIONS connections one
after the other, each with six requests; before one with "client" in its path it makes a new handshake. Each
request is logged as a JSON line. Then it waits until it is ended.
"""

import json
import socket
import sys
import time
from pathlib import Path

from libssl import (
    LIBSSL,
    client_context,
    connections,
    end,
    only_tls_1_2,
    read,
    server_context,
    session_of,
    write,
)

ROLE, PORT, FOLDER = sys.argv[1], int(sys.argv[2]), sys.argv[3]
LOG = Path(sys.argv[4]).open("a", buffering=1)  # noqa: SIM115
ALLOW_CLIENT_RENEGOTIATION = 1 << 8  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + b"x" * 20000


def log(**entry):
    LOG.write(json.dumps(entry) + "\n")


def renegotiate(ssl):
    assert LIBSSL.SSL_renegotiate(ssl) == 1
    assert LIBSSL.SSL_do_handshake(ssl) == 1


def server():
    context = server_context(FOLDER)
    LIBSSL.SSL_CTX_set_options(context, ALLOW_CLIENT_RENEGOTIATION)
    for connection, peer in connections(PORT):
        ssl = session_of(context, connection)
        assert LIBSSL.SSL_accept(ssl) == 1
        while head := read(ssl):
            path = head.split()[1].decode()
            log(path=path, peer=peer)
            if "server" in path:
                renegotiate(ssl)  # the client answers to that while it reads the response
            write(ssl, ANSWER)
        end(ssl, connection)


def client():
    context = client_context()
    only_tls_1_2(context)
    while not Path(sys.argv[5]).exists():
        time.sleep(0.01)
    for number in range(int(sys.argv[6])):
        connection = socket.create_connection(("127.0.0.1", PORT))
        ssl = session_of(context, connection)
        assert LIBSSL.SSL_connect(ssl) == 1
        for request, who in enumerate(("nobody", "client", "client", "server", "nobody", "server")):
            if who == "client":
                renegotiate(ssl)
            path = f"/{number}/{request}/{who}"
            write(ssl, f"GET {path} HTTP/1.1\r\nHost: localhost:{PORT}\r\n\r\n".encode())
            received = 0
            while received < len(ANSWER):
                received += len(read(ssl))
            log(path=path)
        end(ssl, connection)
    log(path="")
    time.sleep(600)


server() if ROLE == "server" else client()
