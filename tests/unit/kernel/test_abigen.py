"""What crosses into user space is described once: a change of it changes the digest, what is unclear is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from autotrace import abi
from autotrace.kernel import abigen
from symbols.btf import Btf

Build = Callable[[str], Path]

SOURCE = """
enum at_kind { AT_FIRST = 1, AT_SECOND = 5 };
struct at_inner { u32 low; u16 left; u16 right; };
struct at_event { u64 ts; struct at_inner in; u8 tail[6]; u8 length; u8 pad; };
struct at_abi { enum at_kind kind; struct at_inner inner; struct at_event event; };
"""

BUILT = sorted(abigen.OBJECT.parent.glob("*.bpf.o"))


def btf(build: Build, source: str) -> Btf:
    return Btf.from_elf(build(source))


def around(members: str) -> str:
    return f"struct at_event {{ {members} }};\nstruct at_abi {{ struct at_event event; }};\n"


def test_the_generated_module_packs_what_c_packs(build: Build) -> None:
    text = abigen.generate(btf(build, SOURCE))
    module: dict[str, object] = {}
    exec(compile(text, "abi.py", "exec"), module)
    event, kind = module["EVENT"], module["Kind"]
    assert event.size == 24  # type: ignore[attr-defined]
    assert event.pack(1, 2, 3, 4, b"abcdef", 6, 0) == (  # type: ignore[attr-defined]
        b"\1\0\0\0\0\0\0\0\2\0\0\0\3\0\4\0abcdef\6\0"
    )
    assert [(value.name, value.value) for value in kind] == [  # type: ignore[attr-defined]
        ("FIRST", 1),
        ("SECOND", 5),
    ]
    assert '"""Fields: ts, in_low, in_left, in_right, tail, length, pad."""' in text


def test_the_places_of_members_are_those_of_the_whole(build: Build) -> None:
    text = abigen.generate(btf(build, SOURCE.replace("at_event", "at_chunk_event")))
    module: dict[str, object] = {}
    exec(compile(text, "abi.py", "exec"), module)
    places = {name: at for name, at in module.items() if name.startswith("CHUNK_EVENT_")}
    assert places == {
        "CHUNK_EVENT_TS": 0,
        "CHUNK_EVENT_IN_LOW": 8,
        "CHUNK_EVENT_IN_LEFT": 12,
        "CHUNK_EVENT_IN_RIGHT": 14,
        "CHUNK_EVENT_TAIL": 16,
        "CHUNK_EVENT_LENGTH": 22,
        "CHUNK_EVENT_BYTES": 24,
    }


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ("u32 a; u64 b;", "struct at_event has hidden padding before b"),
        ("u64 a; u8 b;", "struct at_event has hidden padding at its end"),
        ("struct { u8 x; u32 y; } a; u64 b;", "hidden padding before y"),
        ("union { u32 x; u32 y; } a; u32 b;", "hidden padding before y"),
        ("u32 low : 3; u32 b;", "struct at_event has a bit-field, low"),
        ("int a;", "a has a type that cannot cross"),
        ("u64 *a;", "a has a type that cannot cross"),
        ("u32 a[2];", "a has a type that cannot cross"),
        ("double a;", "a has a type that cannot cross"),
    ],
)
def test_what_c_and_python_could_see_differently_is_refused(
    build: Build, members: str, complaint: str
) -> None:
    types = btf(build, around(members))
    for use in (abigen.generate, abigen.digest):
        with pytest.raises(ValueError, match=complaint):
            use(types)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("u16 left; u16 right;", "u16 right; u16 left;"),
        ("u32 low;", "u32 high;"),
        ("u32 low; u16 left; u16 right;", "u64 low;"),
        ("u8 tail[6]; u8 length;", "u8 tail[5]; u8 length; u8 more;"),
        ("AT_SECOND = 5", "AT_SECOND = 6"),
        ("AT_SECOND = 5", "AT_SECOND = 5, AT_THIRD = 6"),
        ("AT_SECOND", "AT_LAST"),
    ],
)
def test_another_layout_has_another_digest(build: Build, old: str, new: str) -> None:
    changed = SOURCE.replace(old, new)
    assert changed != SOURCE
    assert abigen.digest(btf(build, changed)) != abigen.digest(btf(build, SOURCE))


def test_the_same_layout_has_the_same_digest(build: Build) -> None:
    same = "typedef u16 port;\n/* a comment */\n" + SOURCE.replace("u16 left", "port left")
    assert abigen.digest(btf(build, same)) == abigen.digest(btf(build, SOURCE))


def test_the_objects_are_built() -> None:
    assert abigen.OBJECT in BUILT


@pytest.mark.parametrize("built", BUILT, ids=lambda path: path.name)
def test_the_committed_module_is_what_every_built_object_gives(built: Path) -> None:
    assert abigen.generate(Btf.from_elf(built)) == abigen.TARGET.read_text()
    assert abigen.digest(Btf.from_elf(built)) == abi.DIGEST


def test_the_check_tells_a_module_that_is_out_of_date(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert abigen.main(["--check"]) == 0
    target = tmp_path / "abi.py"
    monkeypatch.setattr(abigen, "TARGET", target)
    assert abigen.main(["--check"]) == 1
    assert "run `make abi`" in capsys.readouterr().err
    assert not target.exists()
    assert abigen.main([]) == 0
    assert abigen.main(["--check"]) == 0
    target.write_text(target.read_text().replace(abi.DIGEST, "0" * 16))
    assert abigen.main(["--check"]) == 1
