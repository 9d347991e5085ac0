"""Two processes that say exactly what a script tells them: `script.py WHERE SCRIPT LOG`.

SCRIPT is a JSON list of steps [who, what, argument]; who is `client` or `server`, what is one of
  say      text (latin-1), in one write, or a list of texts, the pieces of one write; the other side reads all of
           it before its own next step
  unheard  the same, but the other side does not read it
  listen   read what was unheard
  wait     seconds
  shut     end the sending direction; the other side reads the end
  close    close; unread bytes reset the connection. The other side may say nothing more
LOG gets a JSON line {"who", "heard"} for each side when it is done: how many bytes it has read.
WHERE is a port or the path of a Unix socket.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path

WHERE, LOG = sys.argv[1], Path(sys.argv[3])
STEPS = json.loads(Path(sys.argv[2]).read_text())


def play(me, connection):
    heard = unheard = 0

    def hear(count):
        left = count
        while left and (data := connection.recv(min(left, 65536))):
            left -= len(data)
        assert not left, f"{me}: {left} bytes of {count} did not come"
        return count

    for who, what, argument in STEPS:
        if what == "wait":
            time.sleep(argument if who == me else 0)
        elif what == "listen" and who == me:
            heard += hear(unheard)
            unheard = 0
        elif who == me and what in ("say", "unheard"):
            pieces = [
                text.encode("latin-1") for text in ([argument] if isinstance(argument, str) else argument)
            ]
            assert connection.sendmsg(pieces) == sum(map(len, pieces))
        elif what == "say":
            heard += hear(len("".join(argument)))
        elif what == "unheard":
            unheard += len(argument)
        elif what == "shut" and who == me:
            connection.shutdown(socket.SHUT_WR)
        elif what == "shut":
            assert connection.recv(1) == b""
        elif what == "close" and who == me:
            connection.close()
            break
    connection.close()
    with LOG.open("a") as log:
        log.write(json.dumps({"who": me, "heard": heard}) + "\n")


def main():
    tcp = WHERE.isdigit()
    address = ("127.0.0.1", int(WHERE)) if tcp else WHERE
    server = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(address)
    server.listen()
    if os.fork():
        play("server", server.accept()[0])
        _, status = os.wait()
        sys.exit(status != 0)
    client = socket.socket(server.family)
    client.connect(address)
    play("client", client)


main()
