"""A threaded HTTP/1.1 server that calls others: `front_threads.py PORT LOG`.

GET /to/PORT,PORT.../REST calls each port in turn with /REST, on a new connection, and answers 200 once all have
answered; 502 if a call failed. Each call is logged as a JSON line: its target, and its status or its error.
"""

import http.client
import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT = int(sys.argv[1])
LOG = Path(sys.argv[2]).open("a", buffering=1)  # noqa: SIM115
LOCK = threading.Lock()


def call(port, path, headers):
    """One call. /patience/ in the path says how long it waits for a connection and for a response, /retries/ how
    often it tries to connect."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=0.4 if "/patience/" in path else 20)
    if "/retries/" in path:
        connection._create_connection = connect_with_one_retry
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def connect_with_one_retry(address, timeout, source_address):
    client = socket.socket()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
    client.connect(address)
    return client


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        _, _, ports, rest = self.path.split("/", 3)
        passed_on = {name: self.headers[name] for name in ("traceparent", "b3") if name in self.headers}
        results = []
        for port in ports.split(","):
            result = call(int(port), f"/{rest}", passed_on)
            results.append(result)
            with LOCK:
                LOG.write(json.dumps({"port": int(port), "path": f"/{rest}", "result": result}) + "\n")
        body = b"done"
        self.send_response(200 if all(isinstance(each, int) for each in results) else 502)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


Server(("127.0.0.1", PORT), Handler).serve_forever()
