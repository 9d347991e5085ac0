"""An HTTPS/1.1 server on one thread that moves the ciphertext by a BIO of its own, as haproxy and curl do:
`tls_custom_bio.py PORT FOLDER LOG`. Each request is logged as a JSON line with the client's port.
"""

import ctypes
import json
import re
import select
import socket
import sys
from pathlib import Path

from libssl import LIBSSL, server_context

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
LOG = Path(sys.argv[3]).open("a", buffering=1)  # noqa: SIM115
WANT_READ, WANT_WRITE = 2, 3
FLAG_READ, FLAG_WRITE, FLAG_SHOULD_RETRY = 1, 2, 8
CTRL_FLUSH = 11
BUFFER = ctypes.create_string_buffer(65536)

_POINTER, _TEXT, _INT, _LONG = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_long
LIBCRYPTO = ctypes.CDLL("libcrypto.so.3")
MOVE = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _INT)
CTRL = ctypes.CFUNCTYPE(_LONG, _POINTER, _INT, _LONG, _POINTER)
for _library, _name, _result, *_arguments in (
    (LIBCRYPTO, "BIO_meth_new", _POINTER, _INT, _TEXT),
    (LIBCRYPTO, "BIO_meth_set_read", _INT, _POINTER, MOVE),
    (LIBCRYPTO, "BIO_meth_set_write", _INT, _POINTER, MOVE),
    (LIBCRYPTO, "BIO_meth_set_ctrl", _INT, _POINTER, CTRL),
    (LIBCRYPTO, "BIO_new", _POINTER, _POINTER),
    (LIBCRYPTO, "BIO_set_init", None, _POINTER, _INT),
    (LIBCRYPTO, "BIO_set_flags", None, _POINTER, _INT),
    (LIBCRYPTO, "BIO_clear_flags", None, _POINTER, _INT),
    (LIBSSL, "SSL_set_bio", None, _POINTER, _POINTER, _POINTER),
    (LIBSSL, "SSL_set_accept_state", None, _POINTER),
    (LIBSSL, "SSL_get_error", _INT, _POINTER, _INT),
):
    getattr(_library, _name).restype = _result
    getattr(_library, _name).argtypes = _arguments

SOCKETS = {}
"""Address of a BIO -> the socket that it stands for."""


def moved(bio, direction, move):
    LIBCRYPTO.BIO_clear_flags(bio, FLAG_READ | FLAG_WRITE | FLAG_SHOULD_RETRY)
    try:
        return move()
    except BlockingIOError:
        LIBCRYPTO.BIO_set_flags(bio, direction | FLAG_SHOULD_RETRY)
    except OSError:
        pass
    return -1


@MOVE
def read(bio, data, size):
    view = (ctypes.c_char * size).from_address(data)
    return moved(bio, FLAG_READ, lambda: SOCKETS[bio].recv_into(view))


@MOVE
def write(bio, data, size):
    return moved(bio, FLAG_WRITE, lambda: SOCKETS[bio].send(ctypes.string_at(data, size)))


@CTRL
def control(_bio, command, _number, _pointer):
    return command == CTRL_FLUSH


METHOD = LIBCRYPTO.BIO_meth_new(0x480, b"the program's own")
LIBCRYPTO.BIO_meth_set_read(METHOD, read)
LIBCRYPTO.BIO_meth_set_write(METHOD, write)
LIBCRYPTO.BIO_meth_set_ctrl(METHOD, control)


class Session:
    def __init__(self, context, connection, peer):
        connection.setblocking(False)
        self.connection, self.peer = connection, peer
        self.received, self.to_send = b"", b""
        self.bio = LIBCRYPTO.BIO_new(METHOD)
        LIBCRYPTO.BIO_set_init(self.bio, 1)
        SOCKETS[self.bio] = connection
        self.ssl = LIBSSL.SSL_new(context)
        LIBSSL.SSL_set_bio(self.ssl, self.bio, self.bio)
        LIBSSL.SSL_set_accept_state(self.ssl)

    def work(self):
        """Do what can be done now; returns what to wait for, 0 if it is over."""
        while True:
            if self.to_send:
                done = LIBSSL.SSL_write(self.ssl, self.to_send, len(self.to_send))
            else:
                done = LIBSSL.SSL_read(self.ssl, BUFFER, len(BUFFER))
            if done <= 0:
                error = LIBSSL.SSL_get_error(self.ssl, done)
                return {WANT_READ: select.EPOLLIN, WANT_WRITE: select.EPOLLOUT}.get(error, 0)
            if self.to_send:
                self.to_send = self.to_send[done:]
            else:
                self.received += BUFFER.raw[:done]
                self.answer()

    def answer(self):
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self.received = b""
        path = head.split()[1].decode().partition("?")[0]
        LOG.write(json.dumps({"path": path, "peer": self.peer}) + "\n")
        content = b"SECRET-ANSWER" + b"x" * int(path.rpartition("/")[2])
        self.to_send = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content

    def close(self):
        LIBSSL.SSL_free(self.ssl)
        del SOCKETS[self.bio]
        self.connection.close()


def main():
    context = server_context(FOLDER)
    sessions = {}
    poll = select.epoll()
    with socket.create_server(("127.0.0.1", PORT), backlog=1024) as listener:
        poll.register(listener, select.EPOLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == listener.fileno():
                    connection, (_, peer) = listener.accept()
                    sessions[connection.fileno()] = Session(context, connection, peer)
                    poll.register(connection, select.EPOLLIN)
                    continue
                wanted = sessions[descriptor].work()
                if wanted:
                    poll.modify(descriptor, wanted)
                else:
                    poll.unregister(descriptor)
                    sessions.pop(descriptor).close()


main()
