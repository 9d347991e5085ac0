"""A proxy that knows CONNECT and nothing else: `connect_proxy.py PORT [FOLDER]`.

With FOLDER, which holds cert.pem and key.pem, its clients speak TLS to it.
"""

import selectors
import socket
import socketserver
import ssl
import sys

CONTEXT = None
if len(sys.argv) > 2:
    CONTEXT = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    CONTEXT.load_cert_chain(f"{sys.argv[2]}/cert.pem", f"{sys.argv[2]}/key.pem")


class Handler(socketserver.BaseRequestHandler):
    def setup(self):
        if CONTEXT:
            self.request = CONTEXT.wrap_socket(self.request, server_side=True)

    def handle(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.request.recv(4096)
        host, _, port = head.split(b" ")[1].decode().partition(":")
        with socket.create_connection((host, int(port))) as there:
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self.tunnel(there)

    def tunnel(self, there):
        with selectors.DefaultSelector() as selector:
            selector.register(self.request, selectors.EVENT_READ, there)
            selector.register(there, selectors.EVENT_READ, self.request)
            while True:
                for key, _ in selector.select():
                    # As much as a TLS record holds: nothing stays behind in the TLS library.
                    data = key.fileobj.recv(65536)
                    if not data:
                        return
                    key.data.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
