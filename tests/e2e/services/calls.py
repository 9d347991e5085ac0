"""An HTTP client: `calls.py HOW HOST PORT PREFIX COUNT` asks for PREFIX0, PREFIX1, ...

HOW: `new` (a connection each), `kept` (one for all), `same-source-port` (a connection each, from ports 20001 up)
or `wait` (until something listens, at most 10 s).
"""

import http.client
import socket
import sys
import time

HOW, HOST, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])


def connect(number):
    source = ("", 20001 + number) if HOW == "same-source-port" else None
    return http.client.HTTPConnection(HOST, PORT, timeout=10, source_address=source)


def wait():
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            return socket.create_connection((HOST, PORT), 1).close()
        except OSError:
            time.sleep(0.02)
    return sys.exit(f"nothing listens on {HOST}:{PORT}")


def call(count):
    connection = None
    for number in range(count):
        if connection is None or HOW != "kept":
            connection = connect(number)
        connection.request("GET", f"{sys.argv[4]}{number}")
        response = connection.getresponse()
        response.read()
        if HOW != "kept":
            connection.close()


if HOW == "wait":
    wait()
else:
    call(int(sys.argv[5]))
