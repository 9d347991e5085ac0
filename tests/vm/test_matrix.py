"""One kernel of the matrix as part of the ordinary tests: Debian's 6.1 has every flavour, and all must agree."""

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
def test_the_flavours_agree_in_a_guest(kernel: kernels.Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    """The one test that runs under all three flavours; `make vmtest` runs the rest of the core set."""
    with capsys.disabled():  # it takes minutes: the progress is for whoever waits
        print()
        results = matrix.run_flavour(kernel, "fentry", ["tests/e2e/test_flavours.py"])
    assert {result.outcome for result in results} == {matrix.PASSED}, "\n".join(
        f"{result.test}: {result.outcome}: {result.reason}" for result in results
    )
