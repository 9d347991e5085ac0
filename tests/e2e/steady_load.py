"""Load on a watched server while agents come and go, and the truth about every request of it."""

from __future__ import annotations

import threading
from pathlib import Path

from harness import drive, log_entries, wait_for


class SteadyLoad:
    """Requests to a server that agents watch, from outside their tree, until it is left.

    The server is services/backend.py, with its log at `log`.
    """

    def __init__(self, port: int, log: Path) -> None:
        self._port = port
        self._log = log
        self._stopping = threading.Event()
        self._failure: list[BaseException] = []
        self._sent: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> SteadyLoad:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        if kind is None and not self._failure:
            # It logs a request after it has answered, and may be ended next.
            wait_for(lambda: len(log_entries(self._log)) >= len(self._sent), "the server's log")

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                paths = [f"/status/{code}/{len(self._sent) + code}" for code in (200, 201, 404, 503)]
                assert drive(self._port, paths, concurrency=4) == [200, 201, 404, 503]
                self._sent += paths
        except BaseException as failure:
            self._failure.append(failure)

    @property
    def answered(self) -> int:
        """How many requests have been answered."""
        return len(self._sent)

    def check(self) -> None:
        """Every request was answered, and rightly."""
        assert not self._failure, self._failure
        assert len(self._sent) > 100
        assert len(log_entries(self._log)) == len(self._sent)
