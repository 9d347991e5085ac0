"""One kernel of the matrix as part of the ordinary tests: the core set under every flavour on Debian's 6.1."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.vm import kernels, matrix
from tests.vm.guest import BUSYBOX, QEMU

KERNEL = "6.1"


@pytest.fixture
def kernel() -> kernels.Kernel:
    if os.geteuid() != 0:
        pytest.skip("needs root, like what it runs in the guest")
    for program in (QEMU, BUSYBOX):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    try:
        return kernels.get(KERNEL)
    except kernels.KernelUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("flavour", matrix.FLAVOURS)
def test_core_in_a_guest(kernel: kernels.Kernel, flavour: str, capsys: pytest.CaptureFixture[str]) -> None:
    """This kernel has all hooks, so a flavour that does not attach is a failure here."""
    with capsys.disabled():  # it takes minutes: the progress is for whoever waits
        print()
        results = matrix.run_flavour(kernel, flavour, matrix.selection("core"))
    assert {result.outcome for result in results} <= {matrix.PASSED, matrix.SKIPPED}, "\n".join(
        f"{result.test}: {result.outcome}: {result.reason}"
        for result in results
        if result.outcome not in (matrix.PASSED, matrix.SKIPPED)
    )
