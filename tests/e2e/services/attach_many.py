"""Attaches an agent to PID and detaches it, TIMES times: `attach_many.py PID TIMES`.

Each time prints, as a JSON line: how many exchanges were seen and emitted, and this process's open descriptors and
resident bytes after everything was closed.
"""

import gc
import json
import os
import sys
import threading
from pathlib import Path

from autotrace.agent import Agent
from autotrace.config import Config

PID, TIMES = int(sys.argv[1]), int(sys.argv[2])

for _ in range(TIMES):
    agent = Agent(Config(pids=(PID,), metrics_port=0, console="off"), lambda _line: None)
    agent.start()
    threading.Timer(0.25, agent.stop).start()
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
                "descriptors": len(list(Path("/proc/self/fd").iterdir())),
                "resident": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
            }
        ),
        flush=True,
    )
