"""The cache gives what was found, never something else, and never fails."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_elf import BUILD_ID, Symbol, TinyElf, code_address

from symbols.cache import Cache
from symbols.function import Function, Lookup
from symbols.image import Image

FOUND = Function("found", 4096, 16, 512, (520, 525))
NAMES = ["found", "refused", "absent"]


class Search:
    """Stands for the search in a file; remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, names: Collection[str]) -> Lookup:
        self.asked += names
        return Lookup(
            {name: FOUND for name in names if name == "found"},
            {name: "a reason" for name in names if name == "refused"},
        )


EXPECTED = Search()(NAMES)


def test_a_name_is_searched_once_also_if_it_is_absent(tmp_path: Path) -> None:
    search = Search()
    for _ in range(3):  # each stands for a start of the agent
        assert Cache(tmp_path / "cache").look_up("key", "functions", NAMES, search) == EXPECTED
    assert search.asked == NAMES


def test_only_what_is_new_is_searched(tmp_path: Path) -> None:
    search, cache = Search(), Cache(tmp_path / "cache")
    cache.look_up("key", "functions", NAMES[:2], search)
    assert cache.look_up("key", "functions", NAMES, search) == EXPECTED
    assert search.asked == NAMES
    cache.look_up("other", "functions", NAMES[:1], search)
    cache.look_up("key", "go", NAMES[:1], search)
    assert search.asked == [*NAMES, "found", "found"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_damaged_entry_is_found_out_and_written_anew(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "cache"
    shutil.rmtree(folder, ignore_errors=True)
    Cache(folder).look_up("key", "functions", NAMES, Search())
    (entry,) = folder.iterdir()
    content = bytearray(entry.read_bytes())
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    entry.write_bytes(content)
    search = Search()
    assert Cache(folder).look_up("key", "functions", NAMES, search) == EXPECTED
    assert search.asked == NAMES
    assert Cache(folder).look_up("key", "functions", NAMES, search) == EXPECTED
    assert search.asked == NAMES


def test_an_entry_without_its_checksum_is_not_believed(tmp_path: Path) -> None:
    Cache(tmp_path).look_up("key", "functions", NAMES, Search())
    (entry,) = tmp_path.iterdir()
    digest, _, content = entry.read_bytes().partition(b"\n")
    forged = json.loads(content)
    forged["functions"]["found"][3] = 99
    entry.write_bytes(digest + b"\n" + json.dumps(forged).encode())
    assert Cache(tmp_path).look_up("key", "functions", NAMES, Search()) == EXPECTED


def test_the_oldest_entries_go(tmp_path: Path) -> None:
    search, cache = Search(), Cache(tmp_path, max_entries=3)
    for key in range(3):
        cache.look_up(key, "functions", NAMES[:1], search)
        (newest,) = set(tmp_path.iterdir()) - {p for p in tmp_path.iterdir() if p.stat().st_mtime < 10_000}
        os.utime(newest, (key + 1, key + 1))
    (tmp_path / "left-behind").touch()
    os.utime(tmp_path / "left-behind", (0, 0))
    cache.look_up(0, "functions", NAMES[:1], search)  # used again: now the newest
    cache.look_up(3, "functions", NAMES[:1], search)
    assert len(list(tmp_path.iterdir())) == 3
    asked = len(search.asked)
    for key in (0, 2, 3):
        cache.look_up(key, "functions", NAMES[:1], search)
    assert len(search.asked) == asked


def test_a_directory_of_others_is_not_used(tmp_path: Path) -> None:
    search, cache = Search(), Cache(tmp_path)
    tmp_path.chmod(0o777)
    cache.look_up("key", "functions", NAMES, search)
    assert not list(tmp_path.iterdir())
    tmp_path.chmod(0o700)
    cache.look_up("key", "functions", NAMES, search)
    tmp_path.chmod(0o770)
    assert cache.look_up("key", "functions", NAMES, search) == EXPECTED
    assert search.asked == NAMES * 3


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert Cache(tmp_path / "file" / "cache").look_up("key", "functions", NAMES, Search()) == EXPECTED


def test_the_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    Cache(tmp_path / "a" / "cache").look_up("key", "functions", NAMES, Search())
    assert (tmp_path / "a" / "cache").stat().st_mode & 0o777 == 0o700


def _writer(folder: Path, turn: int) -> None:
    for round_ in range(40):
        names = [f"{turn}-{round_}", "found"]
        assert Cache(folder, max_entries=4).look_up(round_ % 6, "functions", names, Search()).found == {
            "found": FOUND
        }


def test_several_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_writer, args=(tmp_path / "cache", turn)) for turn in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(list((tmp_path / "cache").iterdir())) <= 4 + len(writers)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(TinyElf().build_id().symtab([Symbol("read", code_address(0))]).bytes())
    return path


def test_a_forged_build_id_cannot_choose_another_files_offsets(program: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    forged = tmp_path / "forged"
    forged.write_bytes(TinyElf().build_id(BUILD_ID).symtab([Symbol("read", code_address(1))]).bytes())
    for path, address in ((forged, code_address(1)), (program, code_address(0))):
        with Image(path, cache=cache) as image:
            assert image.build_id == BUILD_ID.hex()
            assert image.functions(["read"]).found["read"].address == address


def test_a_file_changed_in_place_is_searched_again(program: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with Image(program, cache=cache) as image:
        assert image.functions(["read"]).found["read"].address == code_address(0)
    program.write_bytes(TinyElf().build_id().symtab([Symbol("read", code_address(2))]).bytes())
    os.utime(program, ns=(1, 1))
    with Image(program, cache=cache) as image:
        assert image.functions(["read"]).found["read"].address == code_address(2)


def test_a_cached_answer_does_not_read_the_tables(program: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with Image(program, cache=cache) as image:
        first = image.functions(["read", "absent"])
    with Image(program, cache=cache) as image:
        assert image.build_id == BUILD_ID.hex()
        image.close()  # nothing more can be read
        assert image.functions(["read", "absent"]) == first
        with pytest.raises(OSError, match="Bad file"):
            image.functions(["new"])
