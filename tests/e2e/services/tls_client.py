"""An HTTPS/1.1 client: `tls_client.py PORT FOLDER LOG KIND CONNECTIONS REQUESTS START GO [EARLY]`.

Once the file START exists it opens CONNECTIONS connections. Once GO exists it makes REQUESTS requests on each:
one after another (KIND threads), or all connections at once (asyncio, uvloop). EARLY of them do not wait for GO.
Every second one is a POST. Each is logged as a JSON line, with the client's port. Then it waits until it is ended.
"""

import asyncio
import json
import socket
import ssl
import sys
import time
from pathlib import Path

PORT, FOLDER = int(sys.argv[1]), Path(sys.argv[2])
LOG = Path(sys.argv[3]).open("a", buffering=1)  # noqa: SIM115
CONNECTIONS, REQUESTS = int(sys.argv[5]), int(sys.argv[6])
START, GO = Path(sys.argv[7]), Path(sys.argv[8])
EARLY = int(sys.argv[9]) if len(sys.argv) > 9 else 0
CONTEXT = ssl.create_default_context(cafile=str(FOLDER / "cert.pem"))


def request(connection, number):
    path = f"/c/{connection}/r/{number}/{(connection * 7 + number) % 5 * 9000}"
    body = b"SECRET-QUESTION" * (number % 2 * 2000)
    head = (
        f"{'POST' if body else 'GET'} {path}?token=SECRET-QUERY HTTP/1.1\r\nHost: localhost:{PORT}\r\n"
        f"Authorization: SECRET-FIELD\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return path, head.encode() + body


def log(path, port, status):
    LOG.write(json.dumps({"path": path, "port": port, "status": status}) + "\n")


def threads():
    session = None
    opened = []
    for _ in range(CONNECTIONS):
        plain = socket.create_connection(("127.0.0.1", PORT))
        wrapped = CONTEXT.wrap_socket(plain, server_hostname="localhost", session=session)
        opened.append((wrapped, wrapped.makefile("rb")))
    for i, (connection, file) in enumerate(opened):
        for number in range(EARLY):
            exchange(connection, file, i, number)
    wait_for(GO)
    for i, (connection, file) in enumerate(opened):
        for number in range(EARLY, REQUESTS):
            exchange(connection, file, i, number)
        session = session or connection.session
    # Another connection resumes the session of the first, and is kept for a second request.
    with (
        socket.create_connection(("127.0.0.1", PORT)) as plain,
        CONTEXT.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
    ):
        file = connection.makefile("rb")
        for number in range(2):
            exchange(connection, file, CONNECTIONS, number)


def exchange(connection, file, i, number):
    path, message = request(i, number)
    connection.sendall(message)
    status = int(file.readline().split()[1])
    length = 0
    while (field := file.readline().strip()) != b"":
        if field.lower().startswith(b"content-length:"):
            length = int(field.split(b":")[1])
    file.read(length)
    log(path, connection.getsockname()[1], status)


def wait_for(file):
    while not file.exists():
        time.sleep(0.01)


async def one(i, opened, go):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", PORT, ssl=CONTEXT, server_hostname="localhost"
    )
    for number in range(REQUESTS):
        if number == EARLY:
            opened.release()
            await go.wait()
        path, message = request(i, number)
        writer.write(message)
        status = int((await reader.readline()).split()[1])
        length = 0
        while (field := (await reader.readline()).strip()) != b"":
            if field.lower().startswith(b"content-length:"):
                length = int(field.split(b":")[1])
        await reader.readexactly(length)
        log(path, writer.get_extra_info("sockname")[1], status)
    writer.close()


async def all_at_once():
    opened, go = asyncio.Semaphore(0), asyncio.Event()
    tasks = [asyncio.create_task(one(i, opened, go)) for i in range(CONNECTIONS)]
    for _ in tasks:
        await opened.acquire()
    while not GO.exists():
        await asyncio.sleep(0.01)
    go.set()
    await asyncio.gather(*tasks)


wait_for(START)
if sys.argv[4] == "uvloop":
    import uvloop

    uvloop.install()
if sys.argv[4] in ("asyncio", "uvloop"):
    asyncio.run(all_at_once())
else:
    threads()
LOG.write(json.dumps({"path": "", "port": 0, "status": 0}) + "\n")
while True:
    time.sleep(60)
