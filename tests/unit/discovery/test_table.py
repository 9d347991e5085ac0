"""The table knows a process from its start until its grace period is over."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from autotrace.discovery.table import ProcessTable
from autotrace.model import GoOffsets, Process

SECOND = 1_000_000_000


def shop(pid: int, name: str = "shop") -> Process:
    resource: dict[str, str | int] = {
        "service.name": name,
        "service.instance.id": f"here:{pid}",
        "host.name": "here",
        "process.pid": pid,
        "process.executable.name": name,
        "telemetry.sdk.name": "autotrace",
        "telemetry.sdk.language": "go",
    }
    return Process(pid, f"/opt/{name}", resource, "go", frozenset(), go=GoOffsets(152))


class System:
    """Stands for the system: which processes there are, and which were looked at."""

    def __init__(self, *pids: int) -> None:
        self.alive = {pid: f"service-{pid}" for pid in pids}
        self.looked_at: list[int] = []

    def describe(self, pid: int) -> Process | None:
        self.looked_at.append(pid)
        return shop(pid, self.alive[pid]) if pid in self.alive else None


def test_a_process_is_described_once_and_only_when_asked_for() -> None:
    system = System(1, 2)
    table = ProcessTable(system.describe)
    table.started(2, parent=1)
    assert system.looked_at == []
    assert table.get(2).service == "service-2"
    assert table.get(2) is table.get(2)
    assert system.looked_at == [2]


def test_a_child_that_vanished_has_its_parents_resource_and_its_own_pid() -> None:
    table = ProcessTable(System(1).describe)
    parent = table.get(1)
    table.started(2, parent=1)
    table.started(3, parent=2)
    table.exited(3, 5)
    child = table.get(3)
    assert (child.pid, child.service, child.exited_ts) == (3, "service-1", 5)
    assert child.resource["process.pid"] == 3
    assert child.resource["service.instance.id"] == "here:3"
    assert (child.rungs, child.go) == (parent.rungs, GoOffsets(152))
    assert parent.resource["process.pid"] == 1


def test_a_vanished_child_that_ran_another_program_is_not_called_by_its_parents_name() -> None:
    table = ProcessTable(System(1).describe)
    table.get(1)
    table.started(2, parent=1)
    table.executed(2)
    child = table.get(2)
    assert child.resource == {
        "service.name": "unknown_service",
        "process.pid": 2,
        "host.name": "here",
        "telemetry.sdk.name": "autotrace",
    }
    assert (child.runtime, child.executable) == ("unknown", "")


def test_a_vanished_child_is_called_what_the_kernel_called_its_program() -> None:
    table = ProcessTable(System(1).describe)
    table.get(1)
    table.started(2, parent=1)
    table.executed(2, "curl")
    table.executed(3, "wget")
    assert (table.get(2).service, table.get(2).resource["host.name"]) == ("curl", "here")
    assert (table.get(3).service, table.get(3).rungs) == ("wget", frozenset({"thread"}))


def test_a_vanished_child_of_a_program_that_vanished_is_called_like_that() -> None:
    table = ProcessTable(System(1).describe)
    table.get(1)
    table.started(2, parent=1)
    table.executed(2, "env")
    table.executed(2, "curl")
    table.started(3, parent=2)
    assert (table.get(3).service, table.get(3).resource["host.name"]) == ("curl", "here")


def test_a_vanished_child_is_described_by_the_parent_that_runs_the_same_program() -> None:
    system = System(1, 2)
    table = ProcessTable(system.describe)
    table.get(1)
    table.started(2, parent=1)
    table.executed(2, "python3")
    for child in (3, 4):
        table.started(child, parent=2)
        table.exited(child, 5)
        assert (table.get(child).service, table.get(child).resource["process.pid"]) == ("service-2", child)


def test_a_vanished_child_is_not_described_by_a_parent_that_runs_another_program_now() -> None:
    table = ProcessTable(System(1, 2).describe)
    table.get(1)
    table.started(2, parent=1)
    table.executed(2, "python3")
    table.started(3, parent=2)
    table.executed(2, "curl")
    assert table.get(3).service == "python3"


def test_another_program_is_described_anew() -> None:
    system = System(1)
    table = ProcessTable(system.describe)
    assert table.get(1).service == "service-1"
    system.alive[1] = "new"
    table.executed(1)
    assert table.get(1).service == "new"


def test_nothing_is_known_of_a_stranger() -> None:
    table = ProcessTable(System().describe)
    assert table.get(9).resource == {"service.name": "unknown_service", "process.pid": 9}
    table.exited(10, 1)
    assert len(table) == 1


def test_a_process_is_kept_for_the_grace_period() -> None:
    system = System(1, 2)
    table = ProcessTable(system.describe, grace_ns=10 * SECOND)
    first = table.get(1)
    table.get(2)
    table.exited(1, 100 * SECOND)
    table.exited(2, 105 * SECOND)
    table.expire(109 * SECOND)
    assert table.get(1) is first
    table.expire(110 * SECOND)
    assert len(table) == 1
    table.expire(115 * SECOND)
    assert len(table) == 0


def test_a_process_that_exited_is_not_looked_for() -> None:
    """Its number may belong to a stranger by now."""
    system = System(1, 2)
    table = ProcessTable(system.describe)
    table.started(2, parent=1)
    table.exited(2, 5)
    assert table.get(2).service == "unknown_service"
    assert system.looked_at == []


def test_a_number_that_is_used_again() -> None:
    system = System(1, 2)
    table = ProcessTable(system.describe, grace_ns=10 * SECOND)
    old = table.get(2)
    table.exited(2, 1)
    system.alive[2] = "next"
    table.started(2, parent=1)
    assert table.get(2).service == "next"
    assert old.exited_ts == 1
    table.expire(100 * SECOND)
    assert table.get(2).service == "next"


def test_a_recorded_process_needs_no_system() -> None:
    system = System()
    table = ProcessTable(system.describe)
    table.add(shop(5))
    assert table.get(5).service == "shop"
    assert system.looked_at == []


def test_those_that_exited_go_first_when_it_is_full() -> None:
    system = System(*range(9))
    table = ProcessTable(system.describe, limit=4)
    for pid in range(4):
        table.get(pid)
    table.exited(2, 1)
    table.started(7, parent=1)
    assert len(table) == 4
    for pid in (0, 1, 3):
        table.get(pid)
    assert system.looked_at == [0, 1, 2, 3]  # none of them had been forgotten
    table.get(2)
    assert system.looked_at[-1] == 2


OPERATIONS: list[Callable[[ProcessTable, int, int], object]] = [
    lambda table, pid, other: table.started(pid, other),
    lambda table, pid, other: table.executed(pid),
    lambda table, pid, other: table.exited(pid, other),
    lambda table, pid, other: table.get(pid),
    lambda table, pid, other: table.expire(other * SECOND),
    lambda table, pid, other: table.add(shop(pid)),
]


@given(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 12), st.integers(0, 99))))
def test_it_stays_bounded_and_answers_for_the_pid_it_was_asked(
    steps: list[tuple[Callable[[ProcessTable, int, int], object], int, int]],
) -> None:
    table = ProcessTable(System(0, 1, 2, 3).describe, limit=5)
    for operation, pid, other in steps:
        operation(table, pid, other)
        assert len(table) <= 5
    for pid in range(13):
        process = table.get(pid)
        assert process.pid == process.resource["process.pid"] == pid
    table.expire(1 << 62)
    assert len(table) <= 5
