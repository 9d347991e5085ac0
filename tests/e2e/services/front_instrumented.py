"""A service with tracing of its own: `front_instrumented.py PORT BACKEND LOG`.

It calls the backend with the path it was asked for, and sends a traceparent of its own making, as an OpenTelemetry
SDK does: the trace it was called in or else a new one, and a new span id. Each call is logged as a JSON line:
path, trace_id, span_id.
"""

import http.client
import json
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, BACKEND = int(sys.argv[1]), int(sys.argv[2])
LOG = Path(sys.argv[3]).open("a", buffering=1)  # noqa: SIM115


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = self.headers.get("traceparent")
        trace_id = asked.split("-")[1] if asked else secrets.token_hex(16)
        span_id = secrets.token_hex(8)
        LOG.write(json.dumps({"path": self.path, "trace_id": trace_id, "span_id": span_id}) + "\n")
        connection = http.client.HTTPConnection("127.0.0.1", BACKEND)
        connection.request("GET", self.path, headers={"traceparent": f"00-{trace_id}-{span_id}-01"})
        connection.getresponse().read()
        connection.close()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


Server(("127.0.0.1", PORT), Handler).serve_forever()
