"""gunicorn's settings for the storefront: one process, threads, and an access log of JSON lines."""

import json
import os
import time

from gunicorn.glogging import Logger

bind = f"127.0.0.1:{os.environ.get('STOREFRONT_PORT', '18081')}"
workers = 1
worker_class = "gthread"
threads = int(os.environ.get("STOREFRONT_THREADS", "16"))
# Longer than nginx keeps a connection to us open, so that we never close one just as nginx uses it.
keepalive = 75
graceful_timeout = 3
# The application is loaded before the socket listens: whoever can connect gets an answer at once.
preload_app = True
control_socket_disable = True
accesslog = os.environ.get("ACCESS_LOG", "-")


class JsonAccessLog(Logger):
    """Writes one JSON object for each request: when it ended, what it was, how long it took."""

    def access(self, resp, req, environ, request_time):
        entry = {
            "time": round(time.time(), 6),
            "method": environ["REQUEST_METHOD"],
            "path": environ["RAW_URI"].partition("?")[0],
            "status": int(resp.status.split()[0]),
            "duration": round(request_time.total_seconds(), 6),
        }
        self.access_log.info(json.dumps(entry))


logger_class = JsonAccessLog
