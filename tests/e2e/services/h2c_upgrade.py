"""h2c_upgrade.py PORT: an HTTP/1.1 server that answers `Upgrade: h2c` with 101 and goes on in HTTP/2.

See RFC 7540, section 3.2. Every response is the path, as its body. The first is sent together with the 101 if
the path begins with /early.
"""

from __future__ import annotations

import socket
import sys
import threading

import h2.config
import h2.connection
import h2.events


def answer(connection: h2.connection.H2Connection, stream: int, path: bytes) -> None:
    connection.send_headers(stream, [(":status", "200"), ("content-length", str(len(path)))])
    connection.send_data(stream, path, end_stream=True)


def serve(client: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        data = client.recv(65536)
        if not data:
            return
        head += data
    path = head.split(b" ")[1]
    settings = next(
        line.split(b":")[1].strip()
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"http2-settings")
    )
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_upgrade_connection(settings)
    early = path.startswith(b"/early")
    if early:
        answer(connection, 1, path)
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    client.sendall(switching + connection.data_to_send())
    while data := client.recv(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                answer(connection, event.stream_id, dict(event.headers)[b":path"])
        if not early:
            early = True
            answer(connection, 1, path)
        client.sendall(connection.data_to_send())


def main() -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=(client,), daemon=True).start()


if __name__ == "__main__":
    main()
