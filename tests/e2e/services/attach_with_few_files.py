"""Attaches the hooks FLAVOUR again and again with fewer file descriptors than they need.

Prints as JSON how many they need; then for each limit, as JSON lines: the limit, the error, and which descriptors
were open after it that were not before; the last line is without a limit.
"""

import json
import resource
import sys
from contextlib import suppress
from pathlib import Path

from autotrace.errors import AutotraceError
from autotrace.kernel.source import attach, spec

FLAVOUR = sys.argv[1]
SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)


def descriptors():
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the directory's own
            found.append(str(entry.readlink()))
    return sorted(found)


def attached():
    return attach(FLAVOUR, spec)


before = descriptors()
source = attached()
needed = len(descriptors()) - len(before)
source.close()
print(json.dumps({"needed": needed}), flush=True)
for allowed in (1, 3, needed // 3, needed // 2, needed * 3 // 4, needed - 3, None):
    limit = SOFT if allowed is None else len(before) + allowed
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, HARD))
    try:
        attached().close()
        error = ""
    except AutotraceError as failure:
        error = str(failure)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, HARD))
    left = [name for name in descriptors() if descriptors().count(name) > before.count(name)]
    print(json.dumps({"allowed": allowed, "error": error, "left": left}), flush=True)
