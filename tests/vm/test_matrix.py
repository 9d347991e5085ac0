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


@pytest.mark.timeout(1800)
def test_the_core_set_under_every_flavour(kernel: kernels.Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    """`make vmtest` runs it on the other kernels too. This one has all hooks: each flavour must work."""
    with capsys.disabled():  # it takes minutes: the progress is for whoever waits
        print()
        results = matrix.run([kernel.version], matrix.FLAVOURS, matrix.selection("core"))
        matrix.show(results)
    wrong = [result for result in results if result.outcome not in (matrix.PASSED, matrix.SKIPPED)]
    assert not wrong, "\n".join(f"{r.flavour} {r.test}: {r.outcome}: {r.reason}" for r in wrong)
