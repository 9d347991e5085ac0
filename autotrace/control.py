"""The local socket on which a running agent answers questions (`autotrace status`, `autotrace explain`).

One JSON object per line each way: `{"command": "status"}` gets `{"result": {...}}` or `{"error": "..."}`.
Only the agent's own user, and root, can connect: the socket's mode is 0600.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from autotrace.errors import AutotraceError

Request = Mapping[str, Any]
Handler = Callable[[Request], dict[str, Any]]

_LINE_MAX = 64 * 1024
"""Longest request, in bytes."""

_CLIENT_TIMEOUT = 2.0
"""Seconds a client may be silent before the next one gets its turn."""


def runtime_dir(setting: Path | None) -> Path:
    """Where the sockets of this user's agents are: `setting`, or the place that is usual for the user."""
    if setting is not None:
        return setting
    if os.geteuid() == 0:
        return Path("/run/autotrace")
    if own := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(own) / "autotrace"
    return Path(tempfile.gettempdir()) / f"autotrace-{os.geteuid()}"


def socket_path(directory: Path, pid: int) -> Path:
    """The socket of the agent with this pid."""
    return directory / f"{pid}.sock"


def running_agents(directory: Path) -> list[int]:
    """The pids of the agents that listen in `directory`, lowest first. What dead agents left is removed."""
    pids = []
    for path in directory.glob("*.sock"):
        if path.stem.isdecimal():
            if _is_stale(path):
                with contextlib.suppress(OSError):
                    path.unlink()
            else:
                pids.append(int(path.stem))
    return sorted(pids)


def _is_stale(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:  # not ours to judge: another user's, or too busy
            return False
    return False


def query(path: Path, command: str, *, timeout: float = 5.0, **arguments: object) -> dict[str, Any]:
    """Ask the agent at `path`. `timeout` is in seconds. Raises AutotraceError if there is no good answer."""
    request = json.dumps({"command": command, **arguments}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(timeout)
            client.connect(str(path))
            client.sendall(request)
            with client.makefile("rb") as lines:
                answer = json.loads(lines.readline())
        if "error" not in answer:
            result: dict[str, Any] = answer["result"]
            return result
    except (FileNotFoundError, ConnectionRefusedError):
        raise AutotraceError(f"No agent answers at {path}; start one with `autotrace run`.") from None
    except PermissionError:
        raise AutotraceError(f"The agent at {path} belongs to another user; ask it with sudo.") from None
    except TimeoutError:
        raise AutotraceError(
            f"The agent at {path} did not answer within {timeout:g} seconds; it is overloaded or stopped."
        ) from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise AutotraceError(f"The agent at {path} gave no usable answer ({error!r}); try again.") from error
    raise AutotraceError(f"The agent at {path} could not answer: {answer['error']}.")


def answer(line: bytes, handlers: Mapping[str, Handler]) -> bytes:
    """Answer one request line with one line, whatever the bytes are and whatever a handler raises."""
    try:
        request = json.loads(line)
        if not isinstance(request, dict) or not isinstance(request.get("command"), str):
            reply: dict[str, Any] = {"error": 'a request is {"command": NAME}'}
        elif request["command"] not in handlers:
            reply = {"error": f"unknown command {request['command']!r}"}
        else:
            reply = {"result": handlers[request["command"]](request)}
        return json.dumps(reply).encode() + b"\n"
    except Exception as error:  # a question must never end the agent
        return json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n"


class ControlServer:
    """Answers on a Unix socket, one client after the other, in a thread of its own.

    `handlers` maps a command to what answers it; they are called in that thread. Use it as a context manager,
    or `start` and `stop`; `stop` removes the socket.
    """

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        self._handlers = handlers
        self._listener = socket.socket(socket.AF_UNIX)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)

    def start(self) -> None:
        """Begin to answer. Raises AutotraceError if the socket cannot be made."""
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            running_agents(self.path.parent)
            self._listener.bind(str(self.path))
            self.path.chmod(0o600)  # nobody can connect before listen, so no moment is open to all
            self._listener.listen()
        except OSError as error:
            self._listener.close()
            raise AutotraceError(
                f"Cannot make the status socket {self.path}: {error.strerror or error}; "
                f"give another directory with --runtime-dir."
            ) from error
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and remove the socket."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
        if self._thread.ident is not None:
            self._thread.join()
            self.path.unlink(missing_ok=True)
        self._listener.close()

    def __enter__(self) -> ControlServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                if self._stopping.wait(0.1):  # a short rest when file descriptors have run out
                    return
                continue
            with client, contextlib.suppress(OSError):
                client.settimeout(_CLIENT_TIMEOUT)
                self._serve_client(client)

    def _serve_client(self, client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            while not self._stopping.is_set() and (line := lines.readline(_LINE_MAX)):
                client.sendall(answer(line, self._handlers))
