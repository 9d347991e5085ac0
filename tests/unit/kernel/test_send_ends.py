"""When the ends of sends are looked at: at first, no more after a calm, and for good if that was too early."""

from __future__ import annotations

import pytest

from autotrace.errors import AutotraceError
from autotrace.kernel.send_ends import CALM, SendEnds


class Programs:
    """Whether the program is attached; attaching fails as often as `refuse` says."""

    def __init__(self, attached: bool = True) -> None:
        self.sees_send_ends = attached
        self.refuse = 0
        self.calls: list[str] = []

    def attach_send_ends(self) -> None:
        self.calls.append("attach")
        if self.refuse:
            self.refuse -= 1
            raise AutotraceError("no descriptor left")
        self.sees_send_ends = True

    def detach_send_ends(self) -> None:
        self.calls.append("detach")
        self.sees_send_ends = False


def follow(ends: SendEnds, read_faults: int, sent: int) -> None:
    ends.follow({"read_faults": read_faults, "sent": sent})


def test_they_are_left_alone_after_a_calm() -> None:
    programs = Programs()
    ends = SendEnds(programs)
    follow(ends, 0, CALM - 1)
    assert programs.sees_send_ends
    follow(ends, 0, CALM)
    assert not programs.sees_send_ends
    follow(ends, 0, 5 * CALM)
    assert programs.calls == ["detach"]


def test_a_fault_begins_the_calm_anew() -> None:
    programs = Programs()
    ends = SendEnds(programs)
    follow(ends, 3, CALM - 1)
    follow(ends, 3, 2 * CALM - 2)
    follow(ends, 4, 5 * CALM)
    follow(ends, 4, 6 * CALM - 1)
    assert programs.calls == []
    follow(ends, 4, 6 * CALM)
    assert programs.calls == ["detach"]


def test_a_fault_after_the_calm_brings_them_back_for_good() -> None:
    programs = Programs()
    ends = SendEnds(programs)
    for faults, sent in ((0, CALM), (1, CALM + 1), (1, 9 * CALM), (2, 9 * CALM), (2, 20 * CALM)):
        follow(ends, faults, sent)
    assert programs.sees_send_ends
    assert programs.calls == ["detach", "attach"]


def test_attaching_is_tried_until_it_works() -> None:
    programs = Programs()
    ends = SendEnds(programs)
    follow(ends, 0, CALM)
    programs.refuse = 2
    for _ in range(2):
        with pytest.raises(AutotraceError):
            follow(ends, 1, CALM)
    follow(ends, 1, CALM)
    follow(ends, 1, CALM)
    assert programs.sees_send_ends
    assert programs.calls == ["detach", "attach", "attach", "attach"]


def test_a_flavour_without_that_program_is_left_as_it_is() -> None:
    programs = Programs(attached=False)
    ends = SendEnds(programs)
    for faults, sent in ((0, CALM), (1, 2 * CALM), (1, 9 * CALM)):
        follow(ends, faults, sent)
    assert programs.calls == []
