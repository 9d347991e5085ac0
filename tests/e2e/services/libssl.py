"""OpenSSL's own calls, for services that need what Python's ssl does not offer."""

import ctypes
import socket

PEM = 1
_MAX_PROTO_VERSION = 124
TLS1_2 = 0x0303
LIBSSL = ctypes.CDLL("libssl.so.3")
BUFFER = ctypes.create_string_buffer(65536)

_POINTER, _TEXT, _INT, _SIZE = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
_CALLS = {
    "TLS_server_method": (_POINTER, ()),
    "TLS_client_method": (_POINTER, ()),
    "SSL_CTX_new": (_POINTER, (_POINTER,)),
    "SSL_CTX_ctrl": (ctypes.c_long, (_POINTER, _INT, ctypes.c_long, _POINTER)),
    "SSL_CTX_set_options": (ctypes.c_uint64, (_POINTER, ctypes.c_uint64)),
    "SSL_CTX_set_max_early_data": (_INT, (_POINTER, ctypes.c_uint32)),
    "SSL_CTX_use_certificate_file": (_INT, (_POINTER, _TEXT, _INT)),
    "SSL_CTX_use_PrivateKey_file": (_INT, (_POINTER, _TEXT, _INT)),
    "SSL_new": (_POINTER, (_POINTER,)),
    "SSL_set_fd": (_INT, (_POINTER, _INT)),
    "SSL_set_session": (_INT, (_POINTER, _POINTER)),
    "SSL_get1_session": (_POINTER, (_POINTER,)),
    "SSL_accept": (_INT, (_POINTER,)),
    "SSL_connect": (_INT, (_POINTER,)),
    "SSL_do_handshake": (_INT, (_POINTER,)),
    "SSL_renegotiate": (_INT, (_POINTER,)),
    "SSL_read": (_INT, (_POINTER, _TEXT, _INT)),
    "SSL_write": (_INT, (_POINTER, _TEXT, _INT)),
    "SSL_read_early_data": (_INT, (_POINTER, _TEXT, _SIZE, _POINTER)),
    "SSL_write_early_data": (_INT, (_POINTER, _TEXT, _SIZE, _POINTER)),
    "SSL_get_early_data_status": (_INT, (_POINTER,)),
    "SSL_shutdown": (_INT, (_POINTER,)),
    "SSL_free": (None, (_POINTER,)),
}
for _name, (_result, _arguments) in _CALLS.items():
    getattr(LIBSSL, _name).restype = _result
    getattr(LIBSSL, _name).argtypes = _arguments


def server_context(folder):
    context = LIBSSL.SSL_CTX_new(LIBSSL.TLS_server_method())
    assert LIBSSL.SSL_CTX_use_certificate_file(context, f"{folder}/cert.pem".encode(), PEM) == 1
    assert LIBSSL.SSL_CTX_use_PrivateKey_file(context, f"{folder}/key.pem".encode(), PEM) == 1
    return context


def client_context():
    return LIBSSL.SSL_CTX_new(LIBSSL.TLS_client_method())


def only_tls_1_2(context):
    LIBSSL.SSL_CTX_ctrl(context, _MAX_PROTO_VERSION, TLS1_2, None)


def session_of(context, connection):
    """A new SSL * on a socket."""
    ssl = LIBSSL.SSL_new(context)
    LIBSSL.SSL_set_fd(ssl, connection.fileno())
    return ssl


def read(ssl):
    got = LIBSSL.SSL_read(ssl, BUFFER, len(BUFFER))
    return BUFFER.raw[:got] if got > 0 else b""


def write(ssl, data):
    assert LIBSSL.SSL_write(ssl, data, len(data)) == len(data)


def end(ssl, connection):
    LIBSSL.SSL_shutdown(ssl)
    LIBSSL.SSL_free(ssl)
    connection.close()


def connections(port):
    """Accept one connection after the other; each with the client's port."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, (_, peer) = listener.accept()
            yield connection, peer
