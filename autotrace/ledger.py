"""The books: every exchange that was seen is emitted, dropped for a reason, or still in flight.

Two kinds of account are kept. The exchange account ends where a span is handed to the exporters (or the
exchange is left out on purpose); each exporter has an account of its own for the spans it was given. Facts
that are not exchanges (protocol errors, lost records, routes that fell over a cap) are notes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from threading import Lock
from typing import Any

RING_FULL = "ring_full"
"""Reason for exchanges whose request never reached user space because the ring buffer was full."""

LOST_REQUEST = "lost_request"
"""The kernel counter (`AT_LOST_REQUEST` in abi.h) that counts exchanges: seen, and dropped as `RING_FULL`."""


class Account:
    """The spans of one exporter: accepted = sent + dropped + queued."""

    __slots__ = ("_accepted", "_dropped", "_lock", "_sent")

    def __init__(self) -> None:
        self._lock = Lock()
        self._accepted = 0
        self._sent = 0
        self._dropped: Counter[str] = Counter()

    def accept(self, n: int = 1) -> None:
        """`n` spans were handed to the exporter, whatever becomes of them."""
        with self._lock:
            self._accepted += n

    def send(self, n: int) -> None:
        """`n` spans were taken by the backend."""
        with self._lock:
            self._sent += n

    def drop(self, reason: str, n: int = 1) -> None:
        """`n` accepted spans will never be sent."""
        with self._lock:
            self._dropped[reason] += n

    @property
    def accepted(self) -> int:
        return self._accepted

    @property
    def sent(self) -> int:
        return self._sent

    @property
    def dropped(self) -> dict[str, int]:
        with self._lock:
            return dict(self._dropped)

    @property
    def queued(self) -> int:
        with self._lock:
            return self._accepted - self._sent - self._dropped.total()

    def snapshot(self) -> dict[str, Any]:
        """The account as plain JSON-able values, taken at one moment."""
        with self._lock:
            queued = self._accepted - self._sent - self._dropped.total()
            return {
                "accepted": self._accepted,
                "sent": self._sent,
                "dropped": dict(self._dropped),
                "queued": queued,
            }


class Ledger:
    """All accounts of one agent. Every method may be called from any thread, but `seen` and `emitted`: they belong
    to the one thread that handles exchanges, and cost it no lock."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._seen = 0
        self._emitted = 0
        self._dropped: Counter[str] = Counter()
        self._notes: dict[tuple[str, str], int] = {}
        self._kernel: dict[str, int] = {}
        self._exporters: dict[str, Account] = {}

    def seen(self, n: int = 1) -> None:
        """`n` exchanges began."""
        self._seen += n

    def emitted(self, n: int = 1) -> None:
        """`n` exchanges became spans and were handed to every exporter."""
        self._emitted += n

    def dropped(self, reason: str, n: int = 1) -> None:
        """`n` exchanges that were seen will give no span."""
        with self._lock:
            self._dropped[reason] += n

    def note(self, stage: str, what: str, n: int = 1) -> None:
        """Count a fact that is not an exchange, under the stage that found it."""
        key = (stage, what)
        with self._lock:
            self._notes[key] = self._notes.get(key, 0) + n

    def kernel(self, counters: Mapping[str, int]) -> None:
        """Set the kernel's totals, named as in `enum at_counter`, without `AT_` and in lower case."""
        with self._lock:
            self._kernel.update(counters)

    def exporter(self, name: str) -> Account:
        """The account of the exporter `name`, opened at its first use."""
        with self._lock:
            return self._exporters.setdefault(name, Account())

    def balance(self, in_flight: int = 0) -> int:
        """How many exchanges are not accounted for: 0 when the books are right.

        `in_flight` is how many exchanges the stages say they still hold.
        """
        with self._lock:
            return self._seen - self._emitted - self._dropped.total() - in_flight

    def snapshot(self) -> dict[str, Any]:
        """Everything as plain JSON-able values. `in_flight` is what is neither emitted nor dropped yet."""
        with self._lock:
            lost = self._kernel.get(LOST_REQUEST, 0)
            dropped = Counter(self._dropped)
            # Read once each, and in this order: what is emitted was seen before.
            emitted = self._emitted
            seen = self._seen
            if lost:
                dropped[RING_FULL] += lost
            notes: dict[str, dict[str, int]] = {}
            for (stage, what), n in sorted(self._notes.items()):
                notes.setdefault(stage, {})[what] = n
            exporters = dict(self._exporters)
            exchanges = {
                "seen": seen + lost,
                "emitted": emitted,
                "dropped": dict(sorted(dropped.items())),
                "in_flight": seen - emitted - self._dropped.total(),
            }
            kernel = dict(self._kernel)
        return {
            "exchanges": exchanges,
            "exporters": {name: account.snapshot() for name, account in sorted(exporters.items())},
            "notes": notes,
            "kernel": kernel,
        }

    def render(self) -> str:
        """The snapshot as lines for a person, printed at the end of `autotrace run`."""
        return render_snapshot(self.snapshot())


def render_snapshot(snapshot: Mapping[str, Any]) -> str:
    """Render what `Ledger.snapshot` gave, here or in another process (`autotrace status`)."""
    exchanges = snapshot["exchanges"]
    lines = [
        f"exchanges: seen {exchanges['seen']} = emitted {exchanges['emitted']} "
        f"+ dropped {_by_reason(exchanges['dropped'])}; in flight {exchanges['in_flight']}"
    ]
    for name, account in snapshot["exporters"].items():
        lines.append(
            f"export {name}: accepted {account['accepted']} = sent {account['sent']} "
            f"+ dropped {_by_reason(account['dropped'])}; queued {account['queued']}"
        )
    for stage, notes in snapshot["notes"].items():
        lines.append(f"{stage}: " + ", ".join(f"{what} {n}" for what, n in notes.items()))
    kernel = {name: n for name, n in snapshot["kernel"].items() if n}
    if kernel:
        lines.append("kernel: " + ", ".join(f"{name} {n}" for name, n in kernel.items()))
    return "\n".join(lines)


def _by_reason(dropped: Mapping[str, int]) -> str:
    total = sum(dropped.values())
    if not total:
        return "0"
    return f"{total} ({', '.join(f'{reason} {n}' for reason, n in sorted(dropped.items()) if n)})"
