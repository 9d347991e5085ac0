"""A threaded HTTP/1.1 server for the end-to-end tests: `backend.py PORT LOG [DELAY_MS [ADDRESS]]`.

It answers after a random delay up to DELAY_MS and logs each request as a JSON line: the tests' ground truth.
Paths: /status/CODE/..., /size/BYTES/..., /chunked/BYTES/..., anything else is 200 with a few bytes.
"""

import json
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT = int(sys.argv[1])
LOG = Path(sys.argv[2]).open("a", buffering=1)  # noqa: SIM115
DELAY = float(sys.argv[3]) / 1000 if len(sys.argv) > 3 else 0.0
ADDRESS = sys.argv[4] if len(sys.argv) > 4 else "127.0.0.1"
LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self):
        begin = time.monotonic_ns()
        received = self.receive()
        if DELAY:
            time.sleep(random.uniform(DELAY / 4, DELAY))
        parts = self.path.split("?")[0].split("/")
        status = int(parts[2]) if parts[1] == "status" else 200
        body = b"x" * int(parts[2]) if parts[1] in ("size", "chunked") else b"hello"
        chunked = parts[1] == "chunked" and self.request_version == "HTTP/1.1"
        if status in (204, 304):
            body = b""
        self.send_response(status)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            body = b""
        elif chunked:
            self.send_chunks(body)
        else:
            self.wfile.write(body)
        entry = {
            "method": self.command,
            "path": self.path,
            "status": status,
            "received": received,
            "sent": len(body),
            "ns": time.monotonic_ns() - begin,
        }
        with LOCK:
            LOG.write(json.dumps(entry) + "\n")

    def receive(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            received = 0
            while size := int(self.rfile.readline(), 16):
                received += len(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return received
        length = left = int(self.headers.get("Content-Length") or 0)
        while left:
            left -= len(self.rfile.read(min(left, 65536)))
        return length

    def send_chunks(self, body):
        for start in range(0, len(body), 3000):
            piece = body[start : start + 3000]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer  # noqa: N815

    def log_message(self, *_arguments):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


Server((ADDRESS, PORT), Handler).serve_forever()
