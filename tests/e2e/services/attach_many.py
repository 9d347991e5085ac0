"""Attaches an agent to PID and detaches it, TIMES times: `attach_many.py PID TIMES`.

Each time prints, as a JSON line: the hooks, how many exchanges were seen and emitted, and this process's open
descriptors, those of BPF among them, and resident bytes after everything was closed. The hooks are those that
AUTOTRACE_HOOKS names.
"""

import gc
import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from autotrace.agent import Agent
from autotrace.config import Config

PID, TIMES = int(sys.argv[1]), int(sys.argv[2])

HOOKS = os.environ.get("AUTOTRACE_HOOKS", "auto")


def descriptors():
    """What each open descriptor of this process is."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the directory's own
            found.append(str(entry.readlink()))
    return found


def stop_later(agent):
    """Stop the agent when it has worked for a while, and has seen something of the load."""
    time.sleep(0.25)
    while not agent.status()["ledger"]["exchanges"]["emitted"]:
        time.sleep(0.05)
    agent.stop()


for _ in range(TIMES):
    agent = Agent(Config(pids=(PID,), metrics_port=0, console="off", hooks=HOOKS), lambda _line: None)
    agent.start()
    threading.Thread(target=stop_later, args=(agent,), daemon=True).start()
    agent.run()
    agent.close()
    books = agent.status()["ledger"]["exchanges"]
    gc.collect()
    print(
        json.dumps(
            {
                "seen": books["seen"],
                "emitted": books["emitted"],
                "dropped": books["dropped"],
                "hooks": agent.status()["hooks"],
                "descriptors": len(descriptors()),
                "bpf_objects": sum("bpf" in name or "perf_event" in name for name in descriptors()),
                "resident": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
            }
        ),
        flush=True,
    )
