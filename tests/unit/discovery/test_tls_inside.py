"""TLS libraries are recognised in files that say nothing else of them."""

from pathlib import Path

import grpc._cython.cygrpc
import pytest

from autotrace.discovery.tls_inside import library_inside

EDGE = 1 << 20
"""Where one piece that is read ends and the next begins."""


def test_a_real_library_without_symbols() -> None:
    assert library_inside(grpc._cython.cygrpc.__file__) == "BoringSSL"


def test_libraries_without_tls() -> None:
    maps = Path("/proc/self/maps").read_text().splitlines()
    libc = next(line.split()[-1] for line in maps if "/libc.so" in line or "/libc-" in line)
    assert library_inside(libc) == ""


@pytest.mark.parametrize("before", [0, EDGE - 5, EDGE - 60, 3 * EDGE])
@pytest.mark.parametrize(
    ("said", "name"),
    [
        (b"OpenSSL 3.5.4 30 Sep 2025", "OpenSSL"),
        (b"OpenSSL 1.1.1w  11 Sep 2023", "OpenSSL"),
        (b"OpenSSL 1.1.1 (compatible; AWS-LC 1.60.0)", "AWS-LC"),
        (b"/cargo/registry/rustls-0.23.5/src/msgs/codec.rs", "rustls"),
        (b"Mbed TLS 3.6.0", "Mbed TLS"),
        (b"OpenSSL is mentioned", "a TLS library that says no name"),
    ],
)
def test_what_they_say_of_themselves(tmp_path: Path, before: int, said: bytes, name: str) -> None:
    file = tmp_path / "program"
    file.write_bytes(bytes(before) + said + bytes(7) + b"c hs traffic" + bytes(100))
    assert library_inside(str(file)) == name
    file.write_bytes(bytes(before) + said)
    assert library_inside(str(file)) == ""
