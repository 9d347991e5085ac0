"""An HTTP server that fails in the way the path says: `faulty.py PORT`.

/reset/...: a part of the response, then a reset. /truncated/...: a part of the response, then an orderly end.
/silent/...: an orderly end without a response. /never/...: no response, until the client goes away.
/deaf/...: no response, and it is not noticed for 2 s that the client goes away.
"""

import socket
import socketserver
import struct
import sys
import time

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        path = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        how = path.split("/")[1]
        if how in ("reset", "truncated"):
            self.request.sendall(HEAD + b"x" * 100)
        if how == "reset":
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        if how == "never":
            self.rfile.read()
        if how == "deaf":
            time.sleep(2)

    def finish(self):
        # Not the usual shutdown first: closing is what sends the reset.
        self.wfile.close()
        self.rfile.close()
        self.request.close()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def shutdown_request(self, request):
        request.close()


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
