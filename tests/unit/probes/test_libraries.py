"""Library manifests: strict to read, and true to the BPF programs."""

from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from autotrace.probes import libraries
from autotrace.probes.table import ManifestError

OBJECTS = Path(libraries.__file__).parents[2] / "bpf"

GOOD = """
name = "some"
display = "Some TLS"
programs = "some"
[recognise]
files = ["libsome.so*"]
[[functions]]
name = "some_read"
required = true
enters = "some_read_enters"
"""


def read(folder: Path, text: str) -> tuple[libraries.Library, ...]:
    (folder / "some.toml").write_text(text)
    return libraries.load(folder)


def test_a_manifest(tmp_path: Path) -> None:
    (library,) = read(tmp_path, GOOD)
    assert library.is_file("/opt/lib/libsome.so.3")
    assert not library.is_file("/opt/libsome.so.3/other.so")
    (function,) = library.functions
    assert (function.names, function.required, library.kind) == (("some_read",), True, libraries.Kind.TLS)


def test_a_library_that_is_asked_in_some_processes_only(tmp_path: Path) -> None:
    (always,) = read(tmp_path, GOOD)
    (library,) = read(tmp_path, GOOD.replace("[recognise]", 'needs = ["other.*"]\n[recognise]'))
    assert always.is_needed([])
    assert library.is_needed(["/usr/lib/libc.so.6", "/opt/other.cpython-311.so"])
    assert not library.is_needed(["/usr/lib/libc.so.6", "/opt/other.d/libsome.so"])


def test_names_that_a_function_had_in_other_versions(tmp_path: Path) -> None:
    text = GOOD.replace('programs = "some"', 'programs = "some"\nkind = "streams"') + 'or = ["some_read2"]\n'
    (library,) = read(tmp_path, text)
    assert library.functions[0].names == ("some_read", "some_read2")
    assert library.kind is libraries.Kind.STREAMS


def test_a_function_that_only_tells_versions_apart(tmp_path: Path) -> None:
    (library,) = read(tmp_path, GOOD + '[[functions]]\nname = "some_init_v2"\nrequired = true\n')
    told = library.functions[1]
    assert (told.required, told.enters, told.returns) == (True, "", "")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('required = true\nenters = "some_read_enters"', "", "enters or returns or required is missing"),
        ("required = true", "required = 1", "required must be true or false"),
        ("required = true", "", "functions has none that is required"),
        ('files = ["libsome.so*"]', "", "recognise.files or inside or go is missing"),
        ('programs = "some"', 'programs = "some"\nprogram = "x"', "program is not a key"),
        ('programs = "some"', 'programs = "some"\nkind = "magic"', "kind is 'magic', which is neither"),
        ('name = "some_read"', "", "name is missing"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(ManifestError, match=r"some\.toml") as raised:
        read(tmp_path, GOOD.replace(old, new))
    assert named in str(raised.value)


@pytest.mark.parametrize("library", libraries.load(), ids=lambda library: library.name)
def test_the_programs_exist(library: libraries.Library) -> None:
    built = OBJECTS / f"{library.programs}.bpf.o"
    if not built.exists():
        pytest.skip("the BPF programs are not built")
    with built.open("rb") as file:
        programs = {symbol.name for symbol in ELFFile(file).get_section_by_name(".symtab").iter_symbols()}
    for function in library.functions:
        assert {function.enters, function.returns} - {""} <= programs
