"""Objects that do not belong to this version are refused before anything is loaded; those that do leave nothing."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrace import abi
from autotrace.errors import AutotraceError
from autotrace.kernel.abigen import OBJECT
from autotrace.kernel.object import PROG_INFO_SIZE, RECURSION_MISSES, Object, Spec
from symbols.btf import Btf

BUILT = OBJECT.read_bytes()
VMLINUX_BTF = Path("/sys/kernel/btf/vmlinux")
KEY, VALUE = b"\x2a\0\0\0", bytes(abi.WATCHED.size)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to load BPF programs")


@pytest.mark.skipif(not VMLINUX_BTF.exists(), reason="needs BTF of the kernel, /sys/kernel/btf/vmlinux")
def test_missed_runs_stand_where_they_are_looked_for() -> None:
    layout = Btf(VMLINUX_BTF.read_bytes()).struct("bpf_prog_info")
    (member,) = [member for member in layout.members if member.name == "recursion_misses"]
    assert (member.offset, member.offset + member.size) == (RECURSION_MISSES, PROG_INFO_SIZE)


def refusal(path: Path, constants: dict[str, int] | None = None) -> str:
    """The one sentence with which an object is refused."""
    with pytest.raises(AutotraceError) as caught:
        Object(Spec(path, constants or {}, {}))
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def other_version(tmp_path: Path) -> Path:
    """The built object, but for the name of one member."""
    path = tmp_path / "other.bpf.o"
    assert b"\0tail_len\0" in BUILT
    path.write_bytes(BUILT.replace(b"\0tail_len\0", b"\0tail_max\0"))
    return path


def test_an_object_with_other_types_is_refused(other_version: Path) -> None:
    sentence = refusal(other_version)
    assert "other.bpf.o and autotrace/abi.py are of different versions" in sentence
    assert abi.DIGEST in sentence
    assert "make bpf" in sentence


def test_an_object_that_is_not_ours_is_refused(build: Callable[[str], Path]) -> None:
    assert "different versions" in refusal(build("struct at_abi { struct at_one { u32 a; } one; };\n"))
    assert "no struct at_abi" in refusal(build("u32 number = 7;\n"))
    assert "hidden padding" in refusal(build("struct at_abi { struct at_one { u8 a; u32 b; } one; };\n"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give up rights")
def test_it_is_refused_before_the_kernel_is_asked(
    other_version: Path, run_without_rights: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    code = (
        "import sys; from pathlib import Path; from autotrace.kernel.object import Object, Spec\n"
        "try: Object(Spec(Path(sys.argv[1]), {}, {}))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    with tempfile.NamedTemporaryFile(suffix=".bpf.o") as readable:  # pytest's own directory is not for nobody
        readable.write(other_version.read_bytes())
        readable.flush()
        Path(readable.name).chmod(0o644)
        done = run_without_rights(code, readable.name)
    assert done.stdout.startswith("AutotraceError "), done.stderr
    assert "different versions" in done.stdout


def test_what_is_no_object_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.bpf.o"
    text.write_text("this is no program")
    empty = tmp_path / "empty.bpf.o"
    empty.touch()
    for path, reason in [
        (tmp_path / "absent.bpf.o", "No such file"),
        (tmp_path, "Is a directory"),
        (text, ""),
        (empty, ""),
        (Path("/bin/sh"), "no .BTF section"),
    ]:
        sentence = refusal(path)
        assert f"{path.name} cannot be read" in sentence
        assert reason in sentence
        assert "make bpf" in sentence


@given(length=st.integers(0, len(BUILT) - 1))
@settings(max_examples=60, deadline=None)
def test_an_object_that_is_cut_short_is_refused(
    tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "cut.bpf.o"
    path.write_bytes(BUILT[:length])
    refusal(path)


def test_a_constant_that_the_object_lacks_is_named() -> None:
    assert "no constant colour, shape" in refusal(OBJECT, {"shape": 1, "head_size": 4096, "colour": 2})


@as_root
def test_a_map_that_the_object_lacks_is_named() -> None:
    with pytest.raises(AutotraceError, match="no map colours"):
        Object(Spec(OBJECT, {}, {"colours": 1}))


@as_root
def test_what_the_kernel_refuses_leaves_nothing_open() -> None:
    Object(Spec(OBJECT, {}, {})).close()
    before = open_files()
    with pytest.raises(AutotraceError, match="the kernel refused"):
        Object(Spec(OBJECT, {}, {"counters": 0}))
    assert open_files() == before


@as_root
def test_a_loaded_object_gives_its_maps_and_takes_them_away_again() -> None:
    Object(Spec(OBJECT, {}, {})).close()
    before = open_files()
    with Object(Spec(OBJECT, {}, {"events": 65536})) as loaded:
        assert {"sweep", "control", "thread_exits"} <= set(loaded.programs())
        assert list(loaded.keys("watched", 4)) == []
        loaded.update("watched", KEY, VALUE)
        assert list(loaded.keys("watched", 4)) == [KEY]
        loaded.delete("watched", KEY)
        loaded.delete("watched", KEY)
        assert list(loaded.keys("watched", 4)) == []
        assert set(loaded.counters()) == {
            counter.name.lower() for counter in abi.Counter if counter is not abi.Counter.COUNTERS
        }
        assert set(loaded.counters().values()) == {0}
        assert loaded.missed_runs() == 0
        assert loaded.map_fd("watched") > 2
        with pytest.raises(AutotraceError, match="no map colours"):
            loaded.map_fd("colours")
        # Commands and sweeps find nothing to do.
        loaded.sweep()
        loaded.sweep()
        loaded.control(abi.Command.STOP, 1, 1)
        loaded.control(abi.Command.FORGET, 1, 1)
        assert loaded.open_ring().take() == []
    loaded.close()
    assert open_files() == before


@contextmanager
def no_more_files() -> Iterator[None]:
    """The limit of open files is where they are now."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@as_root
def test_what_cannot_be_asked_is_not_taken_for_nothing() -> None:
    """An agent that took it so would end every connection it knows."""
    with Object(Spec(OBJECT, {}, {})) as loaded:
        loaded.sweep()
        assert loaded.followed() == set()
        with no_more_files():
            for ask in (loaded.sweep, loaded.followed):
                with pytest.raises(AutotraceError, match="EMFILE"):
                    ask()
        assert loaded.followed() == set()


@as_root
def test_no_more_entries_than_a_map_has_room_for() -> None:
    with Object(Spec(OBJECT, {}, {"watched": 2})) as loaded:
        loaded.update("watched", b"\1\0\0\0", VALUE)
        loaded.update("watched", b"\2\0\0\0", VALUE)
        with pytest.raises(AutotraceError, match="an entry of map watched could not be set: E"):
            loaded.update("watched", KEY, VALUE)


@as_root
def test_attaching_and_detaching_again_leaves_nothing_open() -> None:
    with Object(Spec(OBJECT, {}, {})) as loaded:
        before = open_files()
        loaded.attach()
        assert open_files() > before
        loaded.detach()
        assert open_files() == before
