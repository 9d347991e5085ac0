"""`make vmbench`, or `python -m bench.vm`: what the agent costs nginx, in a guest that counts instructions.

Boots Debian's Linux 6.1 in QEMU with one virtual CPU whose clock is its instruction counter, so that the figures
repeat whatever else this machine does. For each flavour of the socket hooks it measures nginx with and without the
agent, in pairs, prints a table and writes build/vmbench.json. See docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import time

from bench.figures import Figures
from tests.vm import kernels
from tests.vm.guest import BUSYBOX, QEMU, SHARE, Guest, GuestError
from tests.vm.matrix import FLAVOURS, ROOT

_KERNEL = "6.1"
_RESULT = ROOT / "build" / "vmbench.json"
_SAMPLES = "samples.json"
_BPF_RUNS, _OTLP_RUNS = 2, 2
"""At most so many runs of what is slow here and hardly varies."""
_FLAVOUR_SECONDS = 1800
"""That one flavour may take, by this machine's clock."""


def main() -> int:
    options = _options()
    if problem := _problem():
        print(f"Error: {problem}", file=sys.stderr)
        return 1
    figures = Figures()
    began = time.monotonic()
    try:
        kernel = kernels.get(_KERNEL)
        print(f"==> booting {kernel.release}; its clock counts instructions", flush=True)
        with Guest(kernel, icount=True) as guest:
            print(f"    booted in {time.monotonic() - began:.0f} s", flush=True)
            for number, flavour in enumerate(options.flavour or FLAVOURS):
                print(f"==> {flavour}", flush=True)
                if not _measure(figures, guest, flavour, options, otlp=number == 0):
                    return 1
                figures.write(_RESULT)
    except (kernels.KernelUnavailableError, GuestError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"\n{figures.table()}\n\n{time.monotonic() - began:.0f} s; written to {_RESULT}")
    return 0


def _measure(figures: Figures, guest: Guest, flavour: str, options: argparse.Namespace, otlp: bool) -> bool:
    """Measure one flavour in the guest; with `otlp` an agent that sends spans too, for which the flavour makes no
    difference. False if something failed; the guest has said why."""
    command = [
        sys.executable, "-m", "bench.in_guest", flavour, f"{SHARE}/{_SAMPLES}",
        *("--runs", str(options.runs), "--bpf-runs", str(min(options.runs, _BPF_RUNS))),
        *("--otlp-runs", str(min(options.runs, _OTLP_RUNS) if otlp else 0), "--seconds", str(options.seconds)),
    ]  # fmt: skip
    done = guest.run(f"cd {shlex.quote(str(ROOT))} && {shlex.join(command)}", _FLAVOUR_SECONDS, follow=print)
    if done.code:
        return False
    for name, unit, samples in json.loads((guest.share / _SAMPLES).read_text()):
        for sample in samples:
            figures.add(name, unit, sample)
    return True


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.vm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--flavour", nargs="+", choices=FLAVOURS, help="flavours of the socket hooks (default: all of them)"
    )
    parser.add_argument("--runs", type=int, default=3, help="pairs of runs for each flavour (default 3)")
    parser.add_argument(
        "--seconds", type=int, default=2, help="length of one load, in the guest's seconds (default 2)"
    )
    return parser.parse_args()


def _problem() -> str:
    """Why this cannot be measured here, in one sentence; empty if it can."""
    if os.geteuid():
        return "what runs in the guest needs this machine's root: run `sudo make vmbench`."
    for program, package in (
        (QEMU, "qemu-system-x86"),
        (BUSYBOX, "busybox-static"),
        ("nginx", "nginx"),
        ("wrk", "wrk"),
    ):
        if shutil.which(program) is None:
            return f"{program} is not installed: install the package {package}."
    return ""


if __name__ == "__main__":
    sys.exit(main())
