"""HTTPS through a proxy that speaks TLS itself: `tunnel_client.py PROXY_PORT PORT FOLDER urllib3|asyncio TUNNELS`.

Two requests through each tunnel: one tunnel after the other (urllib3), or all at once on one thread (asyncio).
"""

import asyncio
import ssl
import sys

PROXY, PORT, FOLDER = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
TUNNELS = int(sys.argv[5])
CONTEXT = ssl.create_default_context(cafile=f"{FOLDER}/cert.pem")
SIZES = (1, 20000)


def one_after_the_other():
    import urllib3

    for tunnel in range(TUNNELS):
        proxy = f"https://localhost:{PROXY}"
        with urllib3.ProxyManager(proxy, ssl_context=CONTEXT, proxy_ssl_context=CONTEXT) as manager:
            for size in SIZES:
                answer = manager.request("GET", f"https://localhost:{PORT}/through/{tunnel}/{size}")
                assert answer.status == 200


async def through(tunnel):
    reader, writer = await asyncio.open_connection("localhost", PROXY, ssl=CONTEXT)
    writer.write(f"CONNECT localhost:{PORT} HTTP/1.1\r\nHost: localhost:{PORT}\r\n\r\n".encode())
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    await writer.start_tls(CONTEXT, server_hostname="localhost")
    for size in SIZES:
        writer.write(f"GET /through/{tunnel}/{size} HTTP/1.1\r\nHost: localhost:{PORT}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]
        await reader.readexactly(int(length))
    writer.close()


async def all_at_once():
    await asyncio.gather(*(through(tunnel) for tunnel in range(TUNNELS)))


if sys.argv[4] == "asyncio":
    asyncio.run(all_at_once())
else:
    one_after_the_other()
