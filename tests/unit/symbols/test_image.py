"""Functions of real programs and libraries, however they were linked and stripped, against what nm says."""

import lzma
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from symbols.cache import Cache
from symbols.debugfiles import debug_file_path
from symbols.errors import ElfError
from symbols.image import Image

SOURCE = """
static __attribute__((noinline)) int quiet(int x) { return x * 3 + 1; }
int shared_read(int x) { return quiet(x) + 1; }
int shared_write(int x) { return quiet(x) + 2; }
int variable = 5;
static int implementation(int x) { return x; }
static void *resolve(void) { return implementation; }
int chosen(int x) __attribute__((ifunc("resolve")));
int shared_alias(int x) __attribute__((alias("shared_read")));
"""
NAMES = ["shared_read", "shared_write", "shared_alias", "quiet", "absent", "variable", "ead"]
MAIN = "int shared_read(int); int main(int n, char **v) { return shared_read(n); }\n"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not all(shutil.which(tool) for tool in ("gcc", "nm", "strip", "objcopy")):
        pytest.skip("needs gcc and binutils")
    folder = tmp_path_factory.mktemp("image")
    (folder / "a.c").write_text(SOURCE)
    (folder / "main.c").write_text(MAIN)
    return folder


def run(folder: Path, *command: str) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def known_addresses(path: Path, *options: str) -> dict[str, int]:
    rows = (line.split() for line in run(path.parent, "nm", *options, path.name).splitlines())
    return {row[2].split("@")[0]: int(row[0], 16) for row in rows if len(row) == 3}


def found_addresses(path: Path, root: str | Path = "/", cache: Cache | None = None) -> dict[str, int]:
    with Image(path, root, cache) as image:
        lookup = image.functions(NAMES)
        for function in lookup.found.values():
            assert image.offset_of(function.address) == function.offset
        return {name: function.address for name, function in lookup.found.items()}


@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
@pytest.mark.parametrize("stripped", [False, True])
def test_a_library(workshop: Path, style: str, stripped: bool) -> None:
    library = workshop / f"lib-{style}.so"
    run(workshop, "gcc", "-O2", "-shared", "-fPIC", f"-Wl,--hash-style={style}", "-o", library.name, "a.c")
    known = known_addresses(library)
    wanted = {"shared_read", "shared_write", "shared_alias"} | ({"quiet"} if not stripped else set())
    if stripped:
        run(workshop, "strip", library.name)
    assert found_addresses(library) == {name: known[name] for name in wanted}


@pytest.mark.parametrize("link", ["-static", "-no-pie", "-pie"])
def test_a_program(workshop: Path, link: str) -> None:
    program = workshop / f"program{link}"
    run(workshop, "gcc", "-O2", link, "-o", program.name, "main.c", "a.c")
    known = known_addresses(program)
    assert found_addresses(program) == {
        name: known[name] for name in NAMES if name in known and name != "variable"
    }
    run(workshop, "strip", program.name)
    assert found_addresses(program) == {}


def test_what_is_chosen_at_load_time_is_refused(workshop: Path) -> None:
    run(workshop, "gcc", "-O2", "-shared", "-fPIC", "-o", "lib.so", "a.c")
    with Image(workshop / "lib.so") as image:
        lookup = image.functions(["chosen"])
    assert not lookup.found
    assert "chosen among several" in lookup.refused["chosen"]


def test_several_functions_of_one_name(workshop: Path) -> None:
    (workshop / "b.c").write_text(
        "static __attribute__((noinline)) int quiet(int x) { return x * 7; }\n"
        "int other(int x) { return quiet(x) + 5; }\n"
    )
    run(workshop, "gcc", "-O2", "-shared", "-fPIC", "-o", "twice.so", "a.c", "b.c")
    with Image(workshop / "twice.so") as image:
        lookup = image.functions(["quiet", "other"])
    assert lookup.found.keys() == {"other"}
    assert lookup.refused == {"quiet": "there are 2 functions of this name"}


def test_the_default_version_is_taken(workshop: Path) -> None:
    (workshop / "v.c").write_text(
        "int old(int x) { return x; }\nint new(int x) { return x + 1; }\n"
        '__asm__(".symver old,versioned@V1");\n__asm__(".symver new,versioned@@V2");\n'
    )
    (workshop / "v.map").write_text("V1 { versioned; };\nV2 { versioned; } V1;\n")
    run(workshop, "gcc", "-shared", "-fPIC", "-Wl,--version-script=v.map", "-o", "v.so", "v.c")
    known = known_addresses(workshop / "v.so")
    run(workshop, "strip", "v.so")
    with Image(workshop / "v.so") as image:
        assert image.functions(["versioned"]).found["versioned"].address == known["new"] != known["old"]


@pytest.fixture
def separated(workshop: Path, tmp_path: Path) -> tuple[Path, Path, dict[str, int]]:
    """A stripped library, the root directory with its debug file, and what nm said before."""
    library = tmp_path / "lib.so"
    run(workshop, "gcc", "-O2", "-g", "-shared", "-fPIC", "-Wl,--build-id", "-o", str(library), "a.c")
    known = known_addresses(library)
    with Image(library) as image:
        debug = debug_file_path(image.build_id, tmp_path / "root")
    debug.parent.mkdir(parents=True)
    run(workshop, "objcopy", "--only-keep-debug", str(library), str(debug))
    run(workshop, "strip", str(library))
    return library, tmp_path / "root", known


def test_a_debug_file_beside_the_library(separated: tuple[Path, Path, dict[str, int]]) -> None:
    library, root, known = separated
    assert "quiet" not in found_addresses(library)
    assert found_addresses(library, root)["quiet"] == known["quiet"]


def test_a_debug_file_of_something_else_is_not_used(
    separated: tuple[Path, Path, dict[str, int]], workshop: Path
) -> None:
    library, root, _ = separated
    (debug,) = root.rglob("*.debug")
    run(workshop, "gcc", "-O1", "-g", "-shared", "-fPIC", "-Wl,--build-id", "-o", str(debug), "a.c")
    assert "quiet" not in found_addresses(library, root)
    debug.write_bytes(debug.read_bytes()[:200])
    assert "quiet" not in found_addresses(library, root)


def test_the_answer_changes_when_a_debug_file_is_installed(
    separated: tuple[Path, Path, dict[str, int]], tmp_path: Path
) -> None:
    library, root, known = separated
    cache = Cache(tmp_path / "cache")
    (debug,) = root.rglob("*.debug")
    content = debug.read_bytes()
    debug.unlink()
    assert "quiet" not in found_addresses(library, root, cache)
    debug.write_bytes(content)
    assert found_addresses(library, root, cache)["quiet"] == known["quiet"]


def test_mini_debug_info(workshop: Path) -> None:
    """Made as Fedora's find-debuginfo makes it."""
    run(workshop, "gcc", "-O2", "-shared", "-fPIC", "-o", "mini.so", "a.c")
    known = known_addresses(workshop / "mini.so")
    run(workshop, "objcopy", "--only-keep-debug", "mini.so", "mini.debug")
    run(workshop, "objcopy", "-S", "--keep-symbol=quiet", "mini.debug", "mini.small")
    (workshop / "mini.xz").write_bytes(lzma.compress((workshop / "mini.small").read_bytes()))
    run(workshop, "strip", "mini.so")
    run(workshop, "objcopy", "--add-section", ".gnu_debugdata=mini.xz", "mini.so")
    assert found_addresses(workshop / "mini.so")["quiet"] == known["quiet"]


def test_without_a_section_table_the_exported_functions_are_found(workshop: Path) -> None:
    run(workshop, "gcc", "-O2", "-shared", "-fPIC", "-o", "bare.so", "a.c")
    known = known_addresses(workshop / "bare.so")
    data = bytearray((workshop / "bare.so").read_bytes())
    data[0x28:0x30] = bytes(8)  # e_shoff
    data[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
    (workshop / "bare.so").write_bytes(data)
    wanted = {"shared_read", "shared_write", "shared_alias"}
    assert found_addresses(workshop / "bare.so") == {name: known[name] for name in wanted}


def test_a_symbol_inside_a_function_is_refused(workshop: Path) -> None:
    (workshop / "inside.c").write_text(
        "int whole(int x) { if (x) return x * 3;\n"
        '__asm__ volatile(".globl middle; .type middle, @function; middle: nop");\n'
        "return 2; }\n"
    )
    run(workshop, "gcc", "-O2", "-shared", "-fPIC", "-o", "inside.so", "inside.c")
    with Image(workshop / "inside.so") as image:
        lookup = image.functions(["whole", "middle"])
    assert lookup.found.keys() == {"whole"}
    assert lookup.refused == {"middle": "its address is inside another function"}


def test_a_program_of_32_bits_is_refused(workshop: Path) -> None:
    run(workshop, "clang", "-m32", "-c", "main.c", "-o", "main32.o")
    with Image(workshop / "main32.o") as image, pytest.raises(ElfError, match="32 bits"):
        image.functions(NAMES)


def node() -> Path:
    path = shutil.which("node")
    if path is None or Path(path).stat().st_size < 50 << 20:
        pytest.skip("there is no Node with everything inside it here")
    return Path(os.path.realpath(path))


def test_a_large_program() -> None:
    """Node's own copy of OpenSSL: exported, and also with every symbol of it known to nm."""
    path = node()
    names = ["SSL_read", "SSL_write", "SSL_free", "nghttp2_session_mem_recv", "SSL_not_there"]
    with Image(path) as image:
        found = image.functions(names).found
    if not found:
        pytest.skip("this Node has its libraries outside")
    listing = subprocess.run(["nm", "-D", path], check=True, capture_output=True, text=True).stdout
    known = {row.split()[-1]: row.split()[0] for row in listing.splitlines() if row.split()[-1] in names}
    assert {name: f"{function.address:016x}" for name, function in found.items()} == known
