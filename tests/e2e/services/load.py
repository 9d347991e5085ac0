"""An HTTP client under load: `load.py PLAN LOG`.

PLAN has a JSON list per thread: the requests that it sends one after the other, over one kept connection for each
port. LOG gets a JSON line for each: what was asked, and what came back.
"""

import http.client
import json
import socket
import sys
import threading
import time
from pathlib import Path

LOG = Path(sys.argv[2]).open("a", buffering=1)  # noqa: SIM115
LOCK = threading.Lock()
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(http.client.HTTPConnection):
    def send_planned(self, request):
        self._http_vsn, self._http_vsn_str = (10, "HTTP/1.0") if request.get("old") else (11, "HTTP/1.1")
        body = b"b" * request["body"]
        self.putrequest(request["method"], request["path"])
        for name, value in request.get("headers", {}).items():
            self.putheader(name, value)
        if request.get("close"):
            self.putheader("Connection", "close")
        if request.get("chunked"):
            self.putheader("Transfer-Encoding", "chunked")
            self.endheaders((body[i : i + 700] for i in range(0, len(body), 700)), encode_chunked=True)
            return
        if body or request["method"] in ("POST", "PUT"):
            self.putheader("Content-Length", str(len(body)))
        if request.get("expect"):
            self.putheader("Expect", "100-continue")
            self.endheaders()
            assert self.sock.recv(len(CONTINUE), socket.MSG_WAITALL) == CONTINUE
            self.send(body)
        else:
            self.endheaders(body or None)


def work(requests):
    connections = {}
    for request in requests:
        begin = time.monotonic_ns()
        connection = connections.setdefault(
            request["port"], Connection("127.0.0.1", request["port"], timeout=60)
        )
        connection.send_planned(request)
        response = connection.getresponse()
        received = len(response.read())
        if request.get("close") or request.get("old"):
            connection.close()
        entry = {
            "method": request["method"],
            "path": request["path"],
            "status": response.status,
            "sent": request["body"],
            "received": received,
            "ns": time.monotonic_ns() - begin,
        }
        with LOCK:
            LOG.write(json.dumps(entry) + "\n")
    for connection in connections.values():
        connection.close()


THREADS = [threading.Thread(target=work, args=(each,)) for each in json.loads(Path(sys.argv[1]).read_text())]
for thread in THREADS:
    thread.start()
for thread in THREADS:
    thread.join()
