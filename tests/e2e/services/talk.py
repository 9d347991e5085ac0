"""Speaks protocols that are not HTTP/1: `talk.py PORT LOG`.

Server and client are two processes. Each conversation is a connection on which the client says its line and the
server answers with its own, many times; after the first times there is a pause, in which the agent can say that it
does not want the connection.
"""

import os
import socket
import sys
import time
from pathlib import Path

TLS = (
    b"\x16\x03\x01\x00\xa5" + bytes(range(160)),
    b"\x17\x03\x03\x00\x20" + b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1",
)
CONVERSATIONS = {
    "redis": (b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", b"$5\r\nhello\r\n"),
    "redis-inline": (b"PING\r\n", b"+PONG\r\n"),
    "tls": TLS,
    "amqp": (b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00\x00\x00\x01\xc1"),
    "smtp": (b"EHLO example.org\r\n", b"250 OK\r\n"),
    "http2": (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x00\x00\x00\x04\x01",
    ),
    "postgres": (b"Q\x00\x00\x00\x0dSELECT 1\x00", b"T\x00\x00\x00\x04Z\x00"),
    "nats": (b'CONNECT {"verbose":false}\r\n', b'INFO {"server_id":"x"}\r\n'),
    "smtp-like-a-request": (b"HELO host.example.org\r\n", b"250 OK\r\n"),
    "ftp": (b"USER anonymous\r\n", b"331 Send your password\r\n"),
    "binary": (bytes(range(128, 250)), bytes(300)),
}
ROUNDS = 200


def speak(connection, mine, theirs, first):
    for number in range(ROUNDS):
        if number == 5:
            time.sleep(0.4)
        if first or number:
            connection.sendall(mine)
        left = len(theirs)
        while left:
            left -= len(connection.recv(left)) or left
    if not first:
        connection.sendall(mine)


def main():
    address = ("127.0.0.1", int(sys.argv[1]))
    server = socket.create_server(address)
    if not os.fork():
        for question, answer in CONVERSATIONS.values():
            with socket.create_connection(address) as connection:
                speak(connection, question, answer, True)
        os._exit(0)
    for question, answer in CONVERSATIONS.values():
        connection, _ = server.accept()
        with connection:
            speak(connection, answer, question, False)
    os.wait()
    Path(sys.argv[2]).write_text("\n".join(CONVERSATIONS) + "\n")


main()
