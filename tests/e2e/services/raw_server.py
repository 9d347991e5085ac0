"""A server that says what its client tells it to: `raw_server.py PORT`.

It reads requests (heads, and bodies by Content-Length) in threads, one per connection. `/piece/BYTES/MS/...`
answers BYTES bytes in ten writes with MS milliseconds between them; `/letters/...` does it with capital letters,
`/chunked/BYTES/MS/...` with the chunked coding; anything else is 200 with "ok".
"""

import socketserver
import sys
import time


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while head := self.head():
            target = head.split(b" ")[1].decode()
            self.rfile.read(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0].strip() or 0))
            self.answer(target.split("/"))

    def head(self):
        lines = [self.rfile.readline()]
        while lines[-1] not in (b"\r\n", b""):
            lines.append(self.rfile.readline())
        return b"".join(lines) if lines[-1] else b""

    def answer(self, parts):
        if parts[1] not in ("piece", "letters", "chunked"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        each, pause = int(parts[2]) // 10, int(parts[3]) / 1000
        piece = (b"POSTABCDEFGH" if parts[1] == "letters" else b"xyz") * (each // 3 + 1)
        chunked = parts[1] == "chunked"
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (10 * each)
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        for _ in range(10):
            time.sleep(pause)
            self.wfile.write((b"%x\r\n" % each if chunked else b"") + piece[:each] + b"\r\n" * chunked)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
