"""Functions that a type of CPython points at, however the file was linked, against what nm says."""

import shutil
import subprocess
from pathlib import Path

import pytest

from symbols.errors import SymbolsError
from symbols.image import Image

SOURCE = """
struct type { long count; void *kind; long size; const char *name; long basic, item; void (*dealloc)(void *); };
static __attribute__((noinline)) void some_dealloc(void *x) { *(int *)x = 0; }
struct type Some_Type = {1, 0, 0, "Some", 48, 0, some_dealloc};
struct type Empty_Type = {1, 0, 0, "Empty", 48, 0, 0};
void function(void *x) { some_dealloc(x); }
int main(void) { return 0; }
"""
NAME = "Some_Type.tp_dealloc"
PACKED = "-Wl,-z,pack-relative-relocs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not all(shutil.which(tool) for tool in ("gcc", "nm", "strip")):
        pytest.skip("needs gcc and strip, to build a program with a type of CPython")
    folder = tmp_path_factory.mktemp("pytype")
    (folder / "a.c").write_text(SOURCE)
    return folder


def build(folder: Path, name: str, *options: str) -> Path:
    subprocess.run(["gcc", "-O1", "-o", name, "a.c", *options], cwd=folder, check=True)
    return folder / name


def symbol(path: Path, name: str) -> int:
    listed = subprocess.run(["nm", path], check=True, capture_output=True, text=True).stdout
    return next(int(line.split()[0], 16) for line in listed.splitlines() if line.endswith(f" {name}"))


@pytest.mark.parametrize(
    "options",
    [
        ("-shared", "-fPIC"),
        ("-shared", "-fPIC", PACKED),
        ("-no-pie", "-rdynamic"),
        ("-pie", "-fPIE", "-rdynamic"),
    ],
)
@pytest.mark.parametrize("stripped", [False, True])
def test_the_function_in_a_slot(folder: Path, options: tuple[str, ...], stripped: bool) -> None:
    name = "-".join(options).replace("/", "") + str(stripped)
    try:
        path = build(folder, name, *options)
    except subprocess.CalledProcessError:
        if PACKED not in options:
            raise
        pytest.skip("needs a linker that packs relative relocations (-z pack-relative-relocs)")
    expected = symbol(path, "some_dealloc")
    if stripped:
        subprocess.run(["strip", path], check=True)
    with Image(path) as image:
        lookup = image.functions([NAME, "function"])
        assert lookup.found[NAME].address == expected
        assert lookup.found[NAME].offset == image.offset_of(expected)
        assert set(lookup.found) == {NAME, "function"}


def test_what_is_not_there(folder: Path) -> None:
    names = [f"{name}.tp_dealloc" for name in ("Empty_Type", "No_Type", "function", "")]
    names.append("Some_Type.tp_other")
    with Image(build(folder, "none.so", "-shared", "-fPIC")) as image:
        assert not image.functions(names).found


def test_a_slot_outside_of_the_file(folder: Path) -> None:
    path = build(folder, "cut.so", "-shared", "-fPIC", "-Wl,--defsym=Far_Type=0x7fffffff0000")
    with Image(path) as image:
        try:
            lookup = image.functions(["Far_Type.tp_dealloc"])
        except SymbolsError:
            return
        assert not lookup.found
