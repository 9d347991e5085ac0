"""What is recorded is read again; what is no recording, or a damaged one, gives one typed error."""

from __future__ import annotations

import json
import os
import stat
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autotrace import abi
from autotrace.errors import AutotraceError
from autotrace.recording import MAGIC, Entry, Kind, Recorder, damaged, read

META = {"abi": abi.DIGEST, "wall_offset_ns": 1_700_000_000_000_000_000, "host": "boot-id"}
PROCESS: dict[str, object] = {"pid": 42, "executable": "/usr/bin/café"}


def entry(kind: int, payload: bytes) -> bytes:
    return struct.pack("<BI", kind, len(payload)) + payload


def meta(**changes: object) -> bytes:
    return entry(Kind.META, json.dumps(META | changes).encode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.bin"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that a property test writes again and again."""
    return tmp_path_factory.mktemp("recording") / "events.bin"


def write_all_kinds(path: Path) -> list[Entry]:
    recorder = Recorder(path, 1_700_000_000_000_000_000, "boot-id")
    recorder.process(PROCESS)
    recorder.record(b"\2\0\0\0record")
    recorder.record(b"")
    recorder.counters({"sent": 3, "lost_request": 0})
    recorder.tick((1 << 64) - 1)
    recorder.close()
    assert not recorder.failed
    return list(read(path))


def use(entries: list[Entry]) -> None:
    """Ask each entry for all that it may hold."""
    for each in entries:
        for what in (each.json, each.tick, each.counters):
            with suppress(ValueError):
                what()


def refusal(path: Path, data: bytes | None = None) -> str:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(AutotraceError) as caught:
        list(read(path))
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_what_was_written_is_read_in_its_order(path: Path) -> None:
    first, process, record, empty, counters, tick = write_all_kinds(path)
    assert (first.kind, first.json()) == (Kind.META, META)
    assert (process.kind, process.json()) == (Kind.PROCESS, PROCESS)
    assert record == Entry(Kind.RECORD, b"\2\0\0\0record")
    assert empty == Entry(Kind.RECORD, b"")
    assert (counters.kind, counters.counters()) == (Kind.COUNTERS, {"sent": 3, "lost_request": 0})
    assert (tick.kind, tick.tick()) == (Kind.TICK, (1 << 64) - 1)


@given(records=st.lists(st.binary(max_size=300), max_size=20), ticks=st.lists(st.integers(0, (1 << 64) - 1)))
def test_records_and_ticks_come_out(scratch: Path, records: list[bytes], ticks: list[int]) -> None:
    recorder = Recorder(scratch, 0, "h")
    for record in records:
        recorder.record(record)
    for now in ticks:
        recorder.tick(now)
    recorder.close()
    entries = list(read(scratch))[1:]
    assert [each.payload for each in entries if each.kind is Kind.RECORD] == records
    assert [each.tick() for each in entries if each.kind is Kind.TICK] == ticks


def test_after_a_tick_all_before_it_is_in_the_file(path: Path) -> None:
    recorder = Recorder(path, 0, "h")
    recorder.record(b"one")
    recorder.tick(1)
    recorder.record(b"two")
    assert [each.kind for each in read(path)] == [Kind.META, Kind.RECORD, Kind.TICK]
    recorder.close()


def test_a_crash_at_any_byte_costs_the_entry_it_cut_and_nothing_before(path: Path) -> None:
    entries = write_all_kinds(path)
    whole = path.read_bytes()
    ends = [len(MAGIC)]
    for each in entries:
        ends.append(ends[-1] + 5 + len(each.payload))
    assert ends[-1] == len(whole)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        complete = sum(end <= length for end in ends[1:])
        if complete:
            assert list(read(path)) == entries[:complete]
        elif length < len(MAGIC):
            assert "is not a recording" in refusal(path)
        else:
            assert "is empty" in refusal(path)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", MAGIC.replace(b"1", b"2"), MAGIC[:-1] + b" "])
def test_another_file_is_no_recording(path: Path, data: bytes) -> None:
    assert "is not a recording: make one with `autotrace record`" in refusal(path, data)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "absent")
    assert "cannot be read: Is a directory" in refusal(tmp_path)
    # Its first page is not mapped: it opens, and gives an error when it is read.
    assert "cannot be read: Input/output error" in refusal(Path("/proc/self/mem"))


def test_a_recording_of_another_version_says_which(path: Path) -> None:
    sentence = refusal(path, MAGIC + meta(abi="0123456789abcdef"))
    assert "another version" in sentence
    assert "0123456789abcdef" in sentence
    assert abi.DIGEST in sentence


@pytest.mark.parametrize(
    "first",
    [
        entry(Kind.RECORD, b"x"),
        entry(Kind.META, b""),
        entry(Kind.META, b"{"),
        entry(Kind.META, b"\xff"),
        entry(Kind.META, b"[]"),
        entry(Kind.META, b"{}"),
        entry(Kind.META, b"[" * 100_000),
        entry(Kind.META, json.dumps({"abi": abi.DIGEST, "host": "h"}).encode()),
        meta(wall_offset_ns=None),
        meta(wall_offset_ns="soon"),
        meta(wall_offset_ns=1.5),
        meta(wall_offset_ns=float("inf")),
        meta(wall_offset_ns=float("nan")),
        meta(host=7),
    ],
)
def test_a_first_entry_that_is_none(path: Path, first: bytes) -> None:
    assert "has no valid first entry" in refusal(path, MAGIC + first)


@pytest.mark.parametrize(
    "damage",
    [
        entry(0, b""),
        entry(max(Kind) + 1, b"x"),
        entry(255, b""),
        struct.pack("<BI", Kind.RECORD, (1 << 24) + 1),
    ],
)
def test_an_entry_that_cannot_be_is_told_after_those_before_it(path: Path, damage: bytes) -> None:
    path.write_bytes(MAGIC + meta() + entry(Kind.RECORD, b"good") + damage + entry(Kind.RECORD, b"lost"))
    entries = read(path)
    assert next(entries).kind is Kind.META
    assert next(entries) == Entry(Kind.RECORD, b"good")
    with pytest.raises(AutotraceError, match="is damaged"):
        next(entries)


@pytest.mark.parametrize("payload", [b"", b"7", b"[]", b"null", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_an_entry_that_is_no_object(payload: bytes) -> None:
    for what in (Entry(Kind.PROCESS, payload).json, Entry(Kind.COUNTERS, payload).counters):
        with pytest.raises(ValueError):  # noqa: PT011 - json's own texts
            what()


@pytest.mark.parametrize("counters", [{"sent": "3"}, {"sent": None}, {"sent": 1.5}])
def test_counters_are_numbers(counters: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no number"):
        Entry(Kind.COUNTERS, json.dumps(counters).encode()).counters()


@pytest.mark.parametrize("length", [0, 7, 9])
def test_a_tick_has_eight_bytes(length: int) -> None:
    with pytest.raises(ValueError, match=f"tick of {length} bytes"):
        Entry(Kind.TICK, bytes(length)).tick()


@given(
    changes=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 40),
)
def test_damage_gives_entries_or_the_one_error(
    scratch: Path, changes: list[tuple[int, int]], cut: int
) -> None:
    write_all_kinds(scratch)
    data = bytearray(scratch.read_bytes())
    for offset, value in changes:
        data[offset % len(data)] = value
    scratch.write_bytes(data[: len(data) - cut])
    with suppress(AutotraceError):
        use(list(read(scratch)))


@given(st.binary(max_size=200))
@example(b"")
def test_noise_gives_entries_or_the_one_error(scratch: Path, data: bytes) -> None:
    for before in (b"", MAGIC, MAGIC + meta()):
        scratch.write_bytes(before + data)
        with suppress(AutotraceError):
            use(list(read(scratch)))


# --- files that cannot be written ------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_recording_is_for_its_owner_alone(path: Path) -> None:
    old = os.umask(0)
    try:
        Recorder(path, 0, "h").close()
    finally:
        os.umask(old)
    assert mode(path) == 0o600


def test_a_file_that_was_there_is_for_its_owner_alone_from_now_on(path: Path) -> None:
    path.write_bytes(b"older and longer than the recording" * 100)
    path.chmod(0o644)
    Recorder(path, 0, "h").close()
    assert mode(path) == 0o600
    assert [each.kind for each in read(path)] == [Kind.META]


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path / "absent" / "events.bin", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ]:
        with pytest.raises(AutotraceError, match=f"{path} cannot be written: {reason}"):
            Recorder(path, 0, "h")


def test_a_full_disk_ends_the_recording_and_nothing_else() -> None:
    full = Path("/dev/full")
    before = mode(full)
    recorder = Recorder(full, 0, "h")
    for _ in range(10):
        recorder.record(bytes(100_000))
    recorder.process(PROCESS)
    recorder.counters({})
    recorder.tick(1)
    recorder.close()
    assert "the recording /dev/full ends here" in recorder.failed
    assert "No space left on device" in recorder.failed
    assert "\n" not in recorder.failed
    assert mode(full) == before


def test_a_disk_that_is_full_only_at_the_end_is_told_too() -> None:
    recorder = Recorder(Path("/dev/full"), 0, "h")
    recorder.record(b"small")
    assert recorder.failed == ""
    recorder.close()
    assert "No space left on device" in recorder.failed


def test_the_error_of_a_damaged_recording_names_it(path: Path) -> None:
    error = damaged(path, "tick of 3 bytes")
    assert str(path) in str(error)
    assert "tick of 3 bytes" in str(error)
