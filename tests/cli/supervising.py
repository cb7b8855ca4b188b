"""A process that supervises dummy workers, prints their ids, and waits to be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from streamlib.cli.supervisor import Phase, Supervisor

DUMMY = Path(__file__).with_name("dummy_worker.py")

if __name__ == "__main__":
    commands = [[sys.executable, str(DUMMY), act] for act in sys.argv[1:]]
    with Supervisor(commands, lambda index, line: None) as supervisor:
        while any(view.phase is not Phase.RUNNING for view in supervisor.views):
            time.sleep(0.02)
        print(*(view.pid for view in supervisor.views), flush=True)
        supervisor.wait()
