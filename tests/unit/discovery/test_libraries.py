"""The libraries of a process: the right functions of the right file, whatever stands at its path by now."""

import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from grpc._cython import cygrpc

from autotrace.discovery.libraries import LibraryFinder, Use, cache_dir, code_mappings
from autotrace.discovery.procfs import Procfs
from autotrace.probes import libraries
from symbols.debugfiles import debug_file_path
from symbols.image import Image

PROCFS = Procfs()
GRPC_CORE = Path("/usr/lib/x86_64-linux-gnu/libgrpc.so.29")


def finder(pattern: str = "*", cache: Path | None = None) -> LibraryFinder:
    return LibraryFinder(libraries.load(), PROCFS, dict.fromkeys(libraries.Kind, pattern), cache)


def find(pid: int, pattern: str = "*") -> list[Use]:
    return finder(pattern).find(pid)


@pytest.fixture
def private_openssl(start: Any, tmp_path: Path) -> Any:
    """A process with a copy of the OpenSSL that this one uses."""
    mapped = {path for path in PROCFS.mapped_files(os.getpid()) if "/libssl" in path or "/libcrypto" in path}
    if not mapped:
        pytest.skip(f"{ssl.OPENSSL_VERSION} is no shared library here")
    for path in mapped:
        shutil.copy(path, tmp_path)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    running = start(sys.executable, "-c", "import ssl; print(flush=True); input()", stdin=-1, env=environment)
    running.stdout.readline()
    yield running
    running.stdin.close()


def test_openssl_of_a_process(private_openssl: Any, tmp_path: Path) -> None:
    (use,) = find(private_openssl.pid, f"{tmp_path}/*")
    assert use.library.name == "openssl"
    assert Path(use.path).parent == tmp_path
    assert Path(use.opened).samefile(use.path)
    with Path(use.path).open("rb") as file:
        elf = ELFFile(file)
        symbol = elf.get_section_by_name(".dynsym").get_symbol_by_name("SSL_read")[0]
        address = symbol["st_value"]
        (expected,) = elf.address_offsets(address)
    assert {probe.offset for probe in use.probes if probe.program == "ssl_read_enters"} == {expected}


def fail(*_arguments: object) -> Any:
    raise AssertionError("it was looked at once more")


def test_what_was_found_is_remembered(
    private_openssl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_a_start_of_the_agent() -> list[Use]:
        return finder(f"{tmp_path}/*", tmp_path / "made" / "cache").find(private_openssl.pid)

    (first,) = at_a_start_of_the_agent()
    monkeypatch.setattr("symbols.image.dynamic_symbols", fail)
    assert at_a_start_of_the_agent() == [first]
    assert (tmp_path / "made" / "cache").stat().st_mode & 0o777 == 0o700


def test_what_a_path_tells_is_remembered(
    private_openssl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is looked at once more has the same files mapped: hundreds, of which one or two matter."""
    only = finder(f"{tmp_path}/*")
    first = only.find(private_openssl.pid)
    monkeypatch.setattr("autotrace.discovery.libraries.fnmatchcase", fail)
    assert only.find(private_openssl.pid) == first


@pytest.mark.parametrize("state", ["no directory", "open to all", "damaged"])
def test_a_cache_that_cannot_be_used(private_openssl: Any, tmp_path: Path, state: str) -> None:
    cache = tmp_path / "cache"
    finders = [finder(f"{tmp_path}/*", cache) for _ in range(2)]
    if state == "no directory":
        cache.touch()
    else:
        cache.mkdir()
        cache.chmod(0o777 if state == "open to all" else 0o700)
    (first,) = finders[0].find(private_openssl.pid)
    if state == "damaged":
        (entry,) = cache.iterdir()
        entry.write_bytes(b"junk")
    (second,) = finders[1].find(private_openssl.pid)
    assert first == second
    assert {probe.program for probe in first.probes} >= {"ssl_read_enters", "ssl_write_enters"}
    assert state != "open to all" or not list(cache.iterdir())


def test_where_it_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_dir(tmp_path) == tmp_path
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cache_dir(None) == Path("/var/cache/autotrace")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir(None) == tmp_path / "autotrace"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_dir(None) == Path("/home/someone/.cache/autotrace")


def test_a_library_that_was_replaced_on_disk(private_openssl: Any, tmp_path: Path) -> None:
    """An upgrade: the process goes on with the file that it has mapped, and that one is probed."""
    (before,) = find(private_openssl.pid, f"{tmp_path}/*")
    path = Path(before.path)
    inode = path.stat().st_ino
    path.unlink()
    path.write_text("no ELF file at all")
    (after,) = find(private_openssl.pid, f"{tmp_path}/*")
    assert after.path == before.path
    assert after.probes == before.probes
    assert Path(after.opened).stat().st_ino == inode


def test_a_library_that_was_written_over(private_openssl: Any, tmp_path: Path) -> None:
    """The same path, the same inode: what was known of the file does not hold any more."""
    seen = finder(f"{tmp_path}/*")
    (before,) = seen.find(private_openssl.pid)
    (path,) = tmp_path.glob("libssl*")
    content = path.read_bytes()
    path.write_bytes(b"no ELF file")
    assert seen.find(private_openssl.pid) == []
    path.write_bytes(content)
    (after,) = seen.find(private_openssl.pid)
    assert after.file.is_same_file(before.file)
    assert (after.probes, after.file == before.file) == (before.probes, False)


def test_a_debug_file_in_the_program_s_own_root(proc: Any, tmp_path: Path) -> None:
    """Of a stripped program with OpenSSL inside, in a container that has its debug file."""
    if not all(shutil.which(tool) for tool in ("gcc", "strip", "objcopy")):
        pytest.skip("needs gcc, strip and objcopy, to build a program and its debug file")
    names = ("SSL_read", "SSL_write", "SSL_do_handshake", "SSL_free")
    source = "".join(f"int {name}(int x) {{ return x + {len(name)}; }}\n" for name in names)
    (tmp_path / "edge.c").write_text(source + "int main(void) { return 0; }\n")
    program = tmp_path / "edge"
    subprocess.run(["gcc", "-g", "-Wl,--build-id", "-o", program, f"{program}.c"], check=True)
    with Image(program) as image:
        debug = debug_file_path(image.build_id, tmp_path / "root")
    debug.parent.mkdir(parents=True)
    subprocess.run(["objcopy", "--only-keep-debug", program, debug], check=True)
    subprocess.run(["strip", program], check=True)
    maps = "7f0000000000-7f0000001000 r-xp 00000000 fd:00 12 /usr/bin/edge\n"
    for pid in (7, 8):
        folder = proc.add(pid, "/usr/bin/edge", maps=maps)
        (folder / "map_files").mkdir()
        (folder / "map_files" / "7f0000000000-7f0000001000").symlink_to(program)
    (folder / "root").symlink_to(tmp_path / "root")
    (use,) = LibraryFinder(libraries.load(), proc.procfs).find(8)
    assert use.library.name == "openssl"
    assert LibraryFinder(libraries.load(), proc.procfs).find(7) == []


def test_a_pattern_rules_files_out(private_openssl: Any, tmp_path: Path) -> None:
    assert find(private_openssl.pid, "/nowhere/*") == []


def test_a_library_without_its_functions(tmp_path: Path, proc: Any) -> None:
    """A file that only has the name is said to be one that cannot be probed."""
    other = next(path for path in PROCFS.mapped_files(os.getpid()) if "/libc.so" in path or "/libc-" in path)
    folder = proc.add(7, maps="7f0000000000-7f0000001000 r-xp 00000000 fd:00 12 /opt/my libs/libssl.so.3\n")
    (folder / "map_files").mkdir()
    (folder / "map_files" / "7f0000000000-7f0000001000").symlink_to(other)
    (use,) = LibraryFinder(libraries.load(), proc.procfs).find(7)
    assert use.probes == ()
    assert "SSL_read" in use.missing
    assert use.path == "/opt/my libs/libssl.so.3"


def test_a_file_that_is_no_elf_is_left_alone(tmp_path: Path, proc: Any) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(os.urandom(4096))
    folder = proc.add(7, maps="7f0000000000-7f0000001000 r-xp 00000000 fd:00 12 /opt/libssl.so.3\n")
    (folder / "map_files").mkdir()
    (folder / "map_files" / "7f0000000000-7f0000001000").symlink_to(junk)
    assert LibraryFinder(libraries.load(), proc.procfs).find(7) == []


def test_a_library_is_looked_for_where_what_it_needs_is_mapped(proc: Any) -> None:
    image = Path(sys.executable).resolve()
    with image.open("rb") as file:
        needed = [tag.needed for tag in ELFFile(file).get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
    if any(name.startswith("libpython") for name in needed):
        pytest.skip(f"needs CPython inside the executable: {image} has it in a library")
    python = "7f0000000000-7f0000001000 r-xp 00000000 fd:00 12 /opt/libpython3.11.so.1.0\n"
    grpc = "7f0000002000-7f0000003000 r-xp 00000000 fd:00 13 /opt/cygrpc.cpython-311-x86_64-linux-gnu.so\n"
    found = []
    for pid, maps in ((7, python), (8, python + grpc)):
        folder = proc.add(pid, maps=maps)
        (folder / "map_files").mkdir()
        (folder / "map_files" / "7f0000000000-7f0000001000").symlink_to(image)
        uses = LibraryFinder(libraries.load(), proc.procfs).find(pid)
        found.append([use for use in uses if use.library.name == "python_contexts"])
    without, with_it = found
    assert not without
    assert [probe.program for probe in with_it[0].probes] == ["python_context_freed", "python_context_copied"]


@pytest.mark.skipif(not GRPC_CORE.exists(), reason="needs libgrpc29")
def test_grpc_core_is_found_as_debian_packages_it(proc: Any) -> None:
    folder = proc.add(7, maps=f"7f0000000000-7f0000001000 r-xp 00000000 fd:00 12 {GRPC_CORE}\n")
    (folder / "map_files").mkdir()
    (folder / "map_files" / "7f0000000000-7f0000001000").symlink_to(GRPC_CORE)
    (use,) = LibraryFinder(libraries.load(), proc.procfs).find(7)
    assert use.library.name == "grpc_core"
    assert {probe.program.removeprefix("grpc_core_") for probe in use.probes} == {
        "reads", "writes", "transport_ends", "stream_opens", "path_received", "path_sent",
    }  # fmt: skip


def test_grpc_core_without_symbols_is_left_alone(proc: Any) -> None:
    """grpcio's, and any that has the name only."""
    stripped = Path(cygrpc.__file__)
    maps = [f"7f000000{i}000-7f000000{i}fff r-xp 00000000 fd:00 1{i} {path}\n"
            for i, path in enumerate((stripped, "/opt/libgrpc.so.29"))]  # fmt: skip
    folder = proc.add(7, maps="".join(maps))
    (folder / "map_files").mkdir()
    for i in range(len(maps)):
        (folder / "map_files" / f"7f000000{i}000-7f000000{i}fff").symlink_to(stripped)
    assert LibraryFinder(libraries.load(), proc.procfs).find(7) == []


def test_mappings(proc: Any) -> None:
    proc.add(
        7,
        maps="00400000-00401000 r--p 00000000 fd:00 11 /usr/bin/program\n"
        "00401000-00500000 r-xp 00001000 fd:00 11 /usr/bin/program\n"
        "7f0000000000-7f0000001000 r-xp 00000000 fd:01 12 /lib/gone.so (deleted)\n"
        "7f0000002000-7f0000003000 r-xp 00000000 00:00 0\n"
        "7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0                          [vdso]\n",
    )
    found = code_mappings(proc.procfs, 7)
    assert [(each.addresses, each.path) for each in found] == [
        ("401000-500000", "/usr/bin/program"),
        ("7f0000000000-7f0000001000", "/lib/gone.so"),
    ]
