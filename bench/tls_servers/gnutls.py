"""An HTTPS/1.1 server with GnuTLS, whose every answer has 1 kB: `gnutls.py PORT FOLDER`; FOLDER holds cert.pem and
key.pem. It serves one connection after the other, and reads and writes once for each request."""

import ctypes
import socket
import sys
from ctypes import byref, c_void_p

GNUTLS_SERVER, GNUTLS_CRD_CERTIFICATE, GNUTLS_X509_FMT_PEM = 1, 1, 1  # gnutls/gnutls.h
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1024

gnutls = ctypes.CDLL("libgnutls.so.30")
for moves in (gnutls.gnutls_record_recv, gnutls.gnutls_record_send):
    moves.argtypes, moves.restype = [c_void_p, c_void_p, ctypes.c_size_t], ctypes.c_ssize_t


def serve(connection: socket.socket, credentials: c_void_p) -> None:
    session, head = c_void_p(), ctypes.create_string_buffer(4096)
    gnutls.gnutls_init(byref(session), GNUTLS_SERVER)
    gnutls.gnutls_set_default_priority(session)
    gnutls.gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials)
    gnutls.gnutls_transport_set_int2(session, connection.fileno(), connection.fileno())
    if gnutls.gnutls_handshake(session) == 0:
        while gnutls.gnutls_record_recv(session, head, len(head)) > 0:
            gnutls.gnutls_record_send(session, ANSWER, len(ANSWER))
    gnutls.gnutls_deinit(session)


port, folder = int(sys.argv[1]), sys.argv[2]
made = c_void_p()
gnutls.gnutls_certificate_allocate_credentials(byref(made))
files = (f"{folder}/{name}.pem".encode() for name in ("cert", "key"))
if gnutls.gnutls_certificate_set_x509_key_file(made, *files, GNUTLS_X509_FMT_PEM):
    sys.exit(f"The certificate in {folder} cannot be used")
with socket.create_server(("127.0.0.1", port)) as listener:
    while True:
        accepted, _ = listener.accept()
        with accepted:
            serve(accepted, made)
