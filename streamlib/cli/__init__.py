"""The `streamlib` command.

main.py        the command and its sub-commands, and how an error ends it
errors.py      an error as text for a person, or as JSON for a program
logs.py        where log lines go
target.py      MODULE:NAME -> topology
completion.py  what a shell offers at Tab
options.py     options that several sub-commands have
settings.py    options, environment, file, module -> StreamsConfig
run.py         `streamlib run`: one worker here, or several under the supervisor
worker.py      what a worker process does: run, report, end with its supervisor
report.py      the messages from a worker process to its supervisor
supervisor.py  N worker processes: started, watched, restarted, stopped
view.py        what the workers are doing, for a terminal or a log
signals.py     other ways to say Ctrl-C
client.py      what the demo, the benchmarks and `streamlib verify` do as clients of a cluster
topology.py    `streamlib topology`
diff/          `streamlib diff`
new/           `streamlib new`
broker.py      `streamlib broker`
records/       `streamlib produce`, `streamlib consume`
demo/          `streamlib demo`
verify/        `streamlib verify`
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    try:
        from streamlib.cli.main import run_command_line  # late: a part of the package does not need all of it

        run_command_line()
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT, as shells say it
