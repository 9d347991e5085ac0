"""A server whose threads wait for requests in different system calls: `readers.py PORT SOCKET`.

It listens on the port of 127.0.0.1, and at the name of a Unix socket. On both, each connection has a thread; the
first one waits in the first call of WAYS, the next one in the next.
"""

import ctypes
import os
import socket
import sys
import threading

ROOM = 4096
LIBC = ctypes.CDLL(None)


class Piece(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("pieces", ctypes.POINTER(Piece)),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", Header), ("received", ctypes.c_uint))


def by_readv(connection):
    pieces = [bytearray(16), bytearray(ROOM)]
    got = os.readv(connection.fileno(), pieces)
    return b"".join(pieces)[:got]


def by_recvmmsg(connection):
    room = ctypes.create_string_buffer(ROOM)
    piece = Piece(ctypes.cast(room, ctypes.c_void_p), ROOM)
    message = Message(Header(pieces=ctypes.pointer(piece), piece_count=1))
    count = LIBC.recvmmsg(connection.fileno(), ctypes.byref(message), 1, 0, None)
    return room.raw[: message.received] if count == 1 else b""


WAYS = (
    lambda connection: connection.recv(ROOM),
    lambda connection: os.read(connection.fileno(), ROOM),
    lambda connection: connection.recvmsg(ROOM)[0],
    by_readv,
    by_recvmmsg,
)


def serve(connection, take):
    while take(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    connection.close()


def listen(family, address):
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        for way in WAYS:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection, way), daemon=True).start()


listen(socket.AF_INET, ("127.0.0.1", int(sys.argv[1])))
listen(socket.AF_UNIX, sys.argv[2])
threading.Event().wait()
