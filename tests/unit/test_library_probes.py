"""Probes are set once for each file, for as long as a watched process uses it."""

import os

from autotrace.discovery.libraries import FileId, Use
from autotrace.errors import AutotraceError
from autotrace.library_probes import LibraryProbes
from autotrace.model import Probe
from autotrace.probes import libraries

OPENSSL, NGHTTP2 = (
    next(library for library in libraries.load() if library.name == name) for name in ("openssl", "nghttp2")
)
SECOND = 1_000_000_000
MINUTE = 60 * SECOND


class Finder:
    """`mapped` are the paths that a process has mapped; `status` and `offset` are those of the file at a path."""

    def __init__(self) -> None:
        self.mapped: dict[int, list[str]] = {}
        self.states: dict[str, os.stat_result] = {}
        self.offsets: dict[str, int] = {}
        self.forbidden: set[int] = set()

    def status(self, path: str) -> os.stat_result:
        return self.states.get(path, status(inode=hash(path)))

    def find(self, pid: int) -> list[Use]:
        if pid in self.forbidden:
            raise PermissionError(1, "Operation not permitted", f"/proc/{pid}/map_files/1-2")
        if pid not in self.mapped:
            raise ProcessLookupError
        return [
            Use(
                NGHTTP2 if path.endswith("/node") else OPENSSL,
                FileId.of(self.status(path)),
                path,
                path,
                (Probe("ssl_read_enters", self.offsets.get(path, 1), False),),
            )
            for path in self.mapped[pid]
        ]


def status(inode: int, device: int = 1, size: int = 1, changed: int = 1) -> os.stat_result:
    """Of a file that was written to, or of which something else was changed, at the time `changed`."""
    times = {"st_mtime_ns": changed, "st_ctime_ns": changed}
    return os.stat_result((0o644, inode, device, 1, 0, 0, size, 0, changed, changed), times)


class World:
    """`set` are the files whose probes are set now, `ever` all that ever were, in order."""

    def __init__(self) -> None:
        self.finder = Finder()
        self.set: list[str] = []
        self.ever: list[str] = []
        self.said: list[str] = []
        self.notes: list[tuple[str, str]] = []
        self.described: list[int] = []
        self.refuse = False
        self.dies = 0
        self.probes = LibraryProbes(
            self.finder,  # type: ignore[arg-type]
            self.described.append,
            self.set_probes,
            self.said.append,
            lambda stage, what: self.notes.append((stage, what)),
        )

    def set_probes(self, use: Use) -> "Set":
        self.finder.mapped.pop(self.dies, None)
        if self.refuse:
            raise AutotraceError("the kernel refuses")
        self.set.append(use.path)
        self.ever.append(use.path)
        return Set(self, use.path)


class Set:
    def __init__(self, world: World, path: str) -> None:
        self.world = world
        self.path = path
        self.size = self.status().st_size

    def status(self) -> os.stat_result:
        return self.world.finder.status(self.path)

    def is_written(self) -> bool:
        return self.status().st_size != self.size

    def close(self) -> None:
        self.world.set.remove(self.path)


def test_one_file_of_many_processes_is_probed_once() -> None:
    world = World()
    world.finder.mapped = {pid: ["/lib/libssl.so.3"] for pid in (1, 2, 3)}
    for pid in (1, 2, 3):
        world.probes.watched(pid, SECOND)
    world.probes.work(SECOND)
    assert world.set == ["/lib/libssl.so.3"]
    world.probes.close()
    assert world.set == []


def test_probes_stay_a_while_after_the_last_user() -> None:
    world = World()
    world.finder.mapped = {1: ["/lib/a"], 2: ["/lib/a"]}
    for pid in (1, 2):
        world.probes.watched(pid, SECOND)
    world.probes.work(SECOND)
    world.probes.exited(1, 2 * SECOND)
    world.probes.work(10 * MINUTE)
    assert world.set == ["/lib/a"]
    world.probes.exited(2, 10 * MINUTE)
    world.probes.work(10 * MINUTE + SECOND)
    assert world.set == ["/lib/a"]
    world.probes.work(12 * MINUTE)
    assert world.set == []
    assert world.probes.take_gone() == {1, 2}
    assert world.probes.take_gone() == set()


def test_probes_do_not_stay_in_a_file_that_is_written_over() -> None:
    """Another program stands there now, in which they would be anywhere."""
    world = World()
    world.finder.mapped = {1: ["/bin/a"]}
    world.probes.watched(1, SECOND)
    world.probes.work(SECOND)
    world.probes.exited(1, 2 * SECOND)
    world.probes.work(2 * SECOND)
    assert world.set == ["/bin/a"]
    world.finder.states["/bin/a"] = status(inode=hash("/bin/a"), size=2, changed=2)
    world.probes.work(2 * SECOND)
    assert world.set == []


def test_a_file_that_was_written_over_is_probed_anew() -> None:
    world = World()
    world.finder.mapped = {1: ["/lib/a"], 2: ["/lib/a"]}
    world.probes.watched(1, SECOND)
    world.probes.work(SECOND)
    world.finder.states["/lib/a"] = status(inode=hash("/lib/a"), size=2, changed=2)
    world.finder.offsets["/lib/a"] = 2
    world.probes.watched(2, 2 * SECOND)
    world.probes.speaks_tls(2)
    assert (world.set, world.ever) == (["/lib/a"], ["/lib/a"] * 2)
    world.probes.exited(2, 3 * SECOND)
    world.probes.speaks_tls(1)
    world.probes.work(10 * MINUTE)
    assert world.set == ["/lib/a"]


def test_a_library_that_is_written_to_in_use_is_looked_at_again() -> None:
    world = World()
    world.finder.mapped = {1: ["/lib/a"]}
    world.probes.watched(1, SECOND)
    world.probes.work(SECOND)
    world.finder.states["/lib/a"] = status(inode=hash("/lib/a"), size=2, changed=2)
    world.probes.work(2 * SECOND)
    assert world.set == []
    world.probes.work(3 * SECOND)
    assert world.set == ["/lib/a"]


def test_a_file_is_probed_once_whatever_else_of_it_changes() -> None:
    """Its owner, or the path that an upgrade took from it."""
    world = World()
    world.finder.mapped = {1: ["/lib/a"], 2: ["/lib/a"]}
    world.probes.watched(1, SECOND)
    world.probes.work(SECOND)
    world.finder.states["/lib/a"] = status(inode=hash("/lib/a"), changed=2)
    world.probes.watched(2, 2 * SECOND)
    world.probes.work(2 * SECOND)
    world.probes.exited(1, 2 * SECOND)
    world.probes.work(10 * MINUTE)
    assert world.ever == world.set == ["/lib/a"]


def test_a_file_of_two_containers_is_probed_once() -> None:
    """Each sees it on an overlay file system of its own."""
    world = World()
    world.finder.states = {f"/container/{n}": status(inode=7, device=n, changed=3) for n in (1, 2)}
    world.finder.states["/tmpfs/3"] = status(inode=7, device=3, changed=4)
    world.finder.mapped = {1: ["/container/1"], 2: ["/container/2"], 3: ["/tmpfs/3"]}
    for pid in (1, 2, 3):
        world.probes.watched(pid, SECOND)
    world.probes.work(SECOND)
    assert world.ever == ["/container/1", "/tmpfs/3"]
    world.probes.exited(1, 2 * SECOND)
    world.probes.work(10 * MINUTE)
    assert world.set == ["/container/1", "/tmpfs/3"]


def test_a_child_counts_as_a_user() -> None:
    world = World()
    world.finder.mapped = {1: ["/lib/a"]}
    world.probes.watched(1, SECOND)
    world.probes.work(SECOND)
    world.probes.forked(2, 1, SECOND)
    world.probes.exited(1, SECOND)
    world.probes.work(10 * MINUTE)
    assert world.set == ["/lib/a"]


def test_libraries_that_are_loaded_later() -> None:
    world = World()
    world.finder.mapped = {1: []}
    world.probes.watched(1, SECOND)
    world.probes.work(SECOND)
    assert world.set == []
    world.finder.mapped = {1: ["/lib/late"]}
    world.probes.work(3 * SECOND)
    assert world.set == ["/lib/late"]


def test_libraries_of_a_program_that_starts_slowly() -> None:
    world = World()
    world.finder.mapped = {1: []}
    world.probes.watched(1, SECOND)
    for second in range(1, 20):
        world.probes.work(second * SECOND)
    world.finder.mapped = {1: ["/lib/late"]}
    world.probes.work(MINUTE)
    assert world.set == ["/lib/late"]


def test_tls_makes_a_process_be_looked_at_again() -> None:
    world = World()
    world.finder.mapped = {1: []}
    world.probes.watched(1, SECOND)
    world.probes.work(SECOND)
    world.probes.speaks_tls(1)
    world.probes.speaks_tls(1)
    assert world.notes == [("tls", "process_without_known_library")]
    world.finder.mapped = {1: ["/lib/opened"]}
    world.probes.speaks_tls(1)
    assert world.set == ["/lib/opened"]


def test_a_new_program_no_longer_uses_the_old_one_s_libraries() -> None:
    world = World()
    world.finder.mapped = {1: ["/lib/a"]}
    world.probes.watched(1, SECOND)
    world.probes.work(SECOND)
    world.finder.mapped = {1: ["/lib/b"]}
    world.probes.watched(1, 2 * SECOND)
    world.probes.work(2 * SECOND)
    world.probes.work(10 * MINUTE)
    assert world.set == ["/lib/b"]


def test_a_file_that_is_refused_is_tried_once_and_told_once() -> None:
    world = World()
    world.refuse = True
    world.finder.mapped = {pid: ["/lib/a"] for pid in range(5)}
    for pid in range(5):
        world.probes.watched(pid, SECOND)
    world.probes.work(SECOND)
    assert len(world.said) == 1
    assert "the kernel refuses" in world.said[0]
    assert world.notes == [("tls", "library_not_probed")]


def test_a_process_that_exits_while_its_library_is_probed() -> None:
    world = World()
    world.refuse = True
    world.finder.mapped = {1: ["/lib/a"], 2: ["/lib/a"]}
    world.dies = 1
    world.probes.watched(1, SECOND)
    world.probes.work(SECOND)
    assert world.said == []
    world.refuse = False
    world.probes.watched(2, 2 * SECOND)
    world.probes.work(2 * SECOND)
    assert world.set == ["/lib/a"]


def test_processes_that_may_not_be_looked_at_are_told_once() -> None:
    world = World()
    world.finder.forbidden = {1, 2}
    world.finder.mapped = {3: ["/lib/a"]}
    for pid in (1, 2, 3):
        world.probes.watched(pid, SECOND)
    world.probes.work(SECOND)
    told = [said for said in world.said if "CAP_CHECKPOINT_RESTORE" in said]
    assert len(told) == 1
    assert "/proc/1/map_files/1-2 may not be read" in told[0]
    assert world.set == ["/lib/a"]


def test_a_process_that_is_gone_is_not_looked_at_again() -> None:
    world = World()
    world.probes.watched(1, SECOND)
    world.probes.work(SECOND)
    world.finder.mapped = {1: ["/lib/a"]}
    world.probes.work(10 * SECOND)
    assert world.ever == []


def test_what_is_asked_about_old_connections_only_while_there_are_some() -> None:
    world = World()
    world.finder.mapped = {1: ["/lib/a", "/bin/node"], 2: ["/bin/node"], 3: ["/bin/node"]}
    for pid in (1, 2, 3):
        world.probes.watched(pid, SECOND)
    world.probes.work(SECOND)
    assert world.set == ["/lib/a"]
    world.probes.have_old_connections(frozenset({1, 2}), SECOND)
    assert world.set == ["/lib/a", "/bin/node"]
    world.probes.have_old_connections(frozenset({2}), 2 * SECOND)
    world.probes.work(10 * MINUTE)
    assert world.set == ["/lib/a", "/bin/node"]
    world.probes.have_old_connections(frozenset(), 10 * MINUTE)
    world.probes.work(10 * MINUTE + SECOND)
    assert world.set == ["/lib/a", "/bin/node"]
    world.probes.work(12 * MINUTE)
    assert world.set == ["/lib/a"]
    world.probes.have_old_connections(frozenset({3}), 12 * MINUTE)
    assert world.set == ["/lib/a", "/bin/node"]


def test_a_process_with_old_connections_that_is_gone() -> None:
    world = World()
    world.finder.mapped = {1: ["/bin/node"]}
    world.probes.watched(1, SECOND)
    world.probes.have_old_connections(frozenset({1, 2}), SECOND)
    world.probes.exited(1, SECOND)
    world.probes.have_old_connections(frozenset(), 2 * SECOND)
    world.probes.work(10 * MINUTE)
    assert world.set == []
