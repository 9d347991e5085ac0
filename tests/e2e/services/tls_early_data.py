"""HTTPS/1.1 with early data (RFC 8446 section 2.3), on OpenSSL's own calls.

`tls_early_data.py server PORT FOLDER LOG`: takes early data, but refuses that of every third connection. Each
request is logged as a JSON line with the client's port, and whether it came as early data.

`tls_early_data.py client PORT FOLDER LOG GO CONNECTIONS`: once the file GO exists, one connection for a session;
then CONNECTIONS that resume it, each with its first request as early data (sent again if that was refused) and a
second one after it. Each request is logged as a JSON line. Then it waits until it is ended.
"""

import ctypes
import json
import socket
import sys
import time
from pathlib import Path

from libssl import BUFFER, LIBSSL, client_context, connections, end, read, server_context, session_of, write

ROLE, PORT, FOLDER = sys.argv[1], int(sys.argv[2]), sys.argv[3]
LOG = Path(sys.argv[4]).open("a", buffering=1)  # noqa: SIM115
SUCCESS, FINISH, REFUSED = 1, 2, 1
MOST = 16384


def log(**entry):
    LOG.write(json.dumps(entry) + "\n")


def answer(ssl, peer, head, early):
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")
    )
    head, _, body = head.partition(b"\r\n\r\n")
    while len(body) < length:
        body += read(ssl)
    log(path=head.split()[1].decode(), peer=peer, early=early)
    write(ssl, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def early_data(ssl):
    received, count = b"", ctypes.c_size_t()
    while True:
        result = LIBSSL.SSL_read_early_data(ssl, BUFFER, len(BUFFER), ctypes.byref(count))
        received += BUFFER.raw[: count.value] if result == SUCCESS else b""
        if result != SUCCESS:
            assert result == FINISH
            return received


def serve(ssl, peer, takes_early_data):
    head = early_data(ssl) if takes_early_data else b""
    assert LIBSSL.SSL_accept(ssl) == 1
    if head:
        answer(ssl, peer, head, True)
    while head := read(ssl):
        answer(ssl, peer, head, False)


def server():
    context = server_context(FOLDER)
    LIBSSL.SSL_CTX_set_max_early_data(context, MOST)
    for number, (connection, peer) in enumerate(connections(PORT)):
        ssl = session_of(context, connection)
        serve(ssl, peer, number % 3 != 2)
        end(ssl, connection)


def request(path, size):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost:{PORT}\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + b"x" * size


def ask(context, session, path, size):
    """Make two requests on one connection, the first as early data if there is a session; give the new session."""
    connection = socket.create_connection(("127.0.0.1", PORT))
    ssl = session_of(context, connection)
    first, written, refused = request(path, size), ctypes.c_size_t(), False
    if session:
        LIBSSL.SSL_set_session(ssl, session)
        assert LIBSSL.SSL_write_early_data(ssl, first, len(first), ctypes.byref(written)) == 1
    assert LIBSSL.SSL_connect(ssl) == 1
    if session:
        refused = LIBSSL.SSL_get_early_data_status(ssl) == REFUSED
    if refused or not session:
        write(ssl, first)
    assert b" 200 " in read(ssl)
    log(path=path, refused=refused)
    write(ssl, request(f"{path}/again", 0))
    assert b" 200 " in read(ssl)
    log(path=f"{path}/again", refused=False)
    session = LIBSSL.SSL_get1_session(ssl)
    end(ssl, connection)
    return session


def client():
    context = client_context()
    while not Path(sys.argv[5]).exists():
        time.sleep(0.01)
    session = ask(context, None, "/full", 0)
    for number in range(int(sys.argv[6])):
        session = ask(context, session, f"/early/{number}", number % 2 * 9000)
    log(path="", refused=False)
    time.sleep(600)


server() if ROLE == "server" else client()
