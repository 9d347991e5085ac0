"""An HTTPS/1.1 server on any OpenSSL: `tls_dlopen.py PORT FOLDER LOG LIBSSL [OTHER]`.

The library is loaded at the first connection, and OTHER, which serves from then on, at the first one after the file
OTHER-go is there. One connection is served after the other, every second one by SSL_read_ex and SSL_write_ex; each
request is logged as a JSON line with the client's port.
"""

import ctypes
import json
import re
import socket
import sys
from pathlib import Path

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
LOG = Path(sys.argv[3]).open("a", buffering=1)  # noqa: SIM115
PEM = 1


def load(file):
    libssl = ctypes.CDLL(file)
    for name in ("TLS_server_method", "SSL_CTX_new", "SSL_new"):
        getattr(libssl, name).restype = ctypes.c_void_p
    context = ctypes.c_void_p(libssl.SSL_CTX_new(ctypes.c_void_p(libssl.TLS_server_method())))
    assert libssl.SSL_CTX_use_certificate_file(context, f"{FOLDER}/cert.pem".encode(), PEM) == 1
    assert libssl.SSL_CTX_use_PrivateKey_file(context, f"{FOLDER}/key.pem".encode(), PEM) == 1
    return libssl, context


def serve(libssl, ssl, peer, extended):
    buffer = ctypes.create_string_buffer(8192)
    received = b""

    def move(function, data, length):
        """Call SSL_read or SSL_write, or the form of it that tells in another place what was moved."""
        if not extended:
            return getattr(libssl, function)(ssl, data, length)
        moved = ctypes.c_size_t()
        done = getattr(libssl, f"{function}_ex")(ssl, data, ctypes.c_size_t(length), ctypes.byref(moved))
        return moved.value if done == 1 else done

    while True:
        while b"\r\n\r\n" not in received:
            # Looked at first: that consumes nothing.
            if libssl.SSL_peek(ssl, buffer, 100) <= 0:
                return
            got = move("SSL_read", buffer, len(buffer))
            received += buffer.raw[:got]
        head, _, received = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        while len(received) < (int(length[1]) if length else 0):
            received += buffer.raw[: move("SSL_read", buffer, len(buffer))]
        received = b""
        path = head.split()[1].decode().partition("?")[0]
        LOG.write(json.dumps({"path": path, "peer": peer}) + "\n")
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        assert move("SSL_write", answer, len(answer)) == len(answer)


def main():
    loaded = None
    libraries = sys.argv[4:]
    number = 0
    with socket.create_server(("127.0.0.1", PORT)) as listener:
        while True:
            connection, (_, peer) = listener.accept()
            if libraries and (loaded is None or Path(f"{libraries[0]}-go").exists()):
                loaded = load(libraries.pop(0))
            libssl, context = loaded
            ssl = ctypes.c_void_p(libssl.SSL_new(context))
            libssl.SSL_set_fd(ssl, connection.fileno())
            if libssl.SSL_accept(ssl) == 1:
                serve(libssl, ssl, peer, number % 2)
                number += 1
                libssl.SSL_shutdown(ssl)
            libssl.SSL_free(ssl)
            connection.close()


main()
