"""The kernel's frame walker (bpf/grpc/walk.h) once more, in Python: it makes the records that a parser gets."""

from __future__ import annotations

from autotrace.model import Context, Direction, Frames, FramesOrigin

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SHIPPED = (1, 3, 4, 5, 7, 9)
"""HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, GOAWAY, CONTINUATION: header and payload go to user space."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """One frame; `length` other than that of the payload makes it malformed."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class _Side:
    def __init__(self, position: int) -> None:
        self.position = position
        self.header = b""
        self.left = 0
        self.shipped = False
        self.in_payload = False
        self.first = b""  # bytes of DATA, and those cut streams whose next DATA is told with its first bytes
        self.cut: set[int] = set()
        self.number = 0
        self.pending = b""  # a DATA header that waits for its payload
        self.origin = FramesOrigin.START

    def wants(self, header: bytes, first: bytes) -> bool:
        """Tell if the first bytes of a DATA frame are passed on."""
        length, flags, stream = int.from_bytes(header[:3]), header[4], header[8] >> 1 & 63
        if not length:
            return False
        after_cut = stream in self.cut
        self.cut.discard(stream)
        if flags & 8 or (first[0] > 1 and not after_cut):
            return False
        if length < 5:
            if not flags & 1:
                self.cut.add(stream)
            return True
        return after_cut or int.from_bytes(first[1:]) + 5 >= length


class Walker:
    """Walks both directions of a connection; each `move` is one call of a program. `lose` drops the next record."""

    def __init__(self, client: Direction = Direction.TX, joined: bool = False, start: int = 1000) -> None:
        self.client = client
        self.sides = (_Side(start), _Side(start + 5_000_000_000))
        self.now = 0
        if joined:
            for side in self.sides:
                side.origin = FramesOrigin.JOINED
        else:
            self.sides[client].left = len(PREFACE)
            self.sides[client].in_payload = True

    def move(self, direction: Direction, data: bytes, lose: bool = False) -> Frames | None:
        """The record of a call that moves `data`, None if there is nothing to tell, or it is lost."""
        self.now += 1
        side = self.sides[direction]
        out = bytearray()
        lead = len(data) if side.in_payload and side.shipped else 0
        lead = min(lead, side.left)
        position = side.position
        at = 0
        while at < len(data) or (side.in_payload and not side.left):
            if side.in_payload:
                n = min(side.left, len(data) - at)
                if side.shipped:
                    out += data[at : at + n]
                elif side.pending:
                    side.first = (side.first + data[at : at + n])[:5]
                at += n
                side.left -= n
                if side.left:
                    break
                side.in_payload = False
                if side.pending:
                    told = bytearray(side.pending)
                    told[4] &= ~0x40
                    first, side.first, side.pending = side.first, b"", b""
                    if side.wants(told, first):
                        told[4] |= 0x40
                        told += first.ljust(5, b"\0")
                    out += told
                continue
            need = 9 - len(side.header)
            side.header += data[at : at + need]
            at += min(need, len(data) - at)
            if len(side.header) < 9:
                break
            header, side.header = side.header, b""
            side.left = int.from_bytes(header[:3])
            side.in_payload = True
            side.shipped = header[3] in SHIPPED
            if side.shipped:
                out += header
            elif header[3] == 0:
                side.pending = header
        side.position += len(data)
        if not out:
            return None
        side.number += 1
        return None if lose else self.record(direction, bytes(out), lead, position)

    def record(self, direction: Direction, data: bytes, lead: int, position: int = 0) -> Frames:
        """The direction's next record with just this data, numbered as the last one that was made."""
        side = self.sides[direction]
        origin, side.origin = side.origin, FramesOrigin.FOLLOWS
        return Frames(
            7, direction, side.number, position, data, lead, origin, Context(self.now, 1, 1, 0, 0, 0)
        )
