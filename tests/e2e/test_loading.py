"""What it costs to load the programs: the kernel follows every way there is through each of them."""

from __future__ import annotations

import ctypes
import sys

import pytest
from kernel_state import flavour_in_use

from autotrace.kernel.libbpf import Libbpf
from autotrace.kernel.object import Object
from autotrace.kernel.source import spec

MOST = 100_000
"""Instructions that the verifier may look at for one program. It gives up at 1,000,000."""

INFO_SIZE = 224
VERIFIED = slice(216, 220)
"""struct bpf_prog_info (linux/bpf.h) with its member verified_insns, and where that is."""


@pytest.mark.core
def test_no_program_is_much_work_for_the_verifier() -> None:
    bpf = Libbpf()
    verified = {}
    with Object(spec(flavour_in_use())) as programs:
        for name, fd in programs.programs().items():
            info, size = ctypes.create_string_buffer(INFO_SIZE), ctypes.c_uint32(INFO_SIZE)
            if fd >= 0 and bpf.bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)) == 0:
                verified[name] = int.from_bytes(info.raw[VERIFIED], sys.byteorder)
    assert len(verified) > 5
    if not any(verified.values()):
        pytest.skip("this kernel does not tell how much its verifier did: it came with Linux 5.16")
    assert {name: each for name, each in verified.items() if each > MOST} == {}
