from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import signal, time
from streamlib.cli.signals import end_like_ctrl_c
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for its background jobs
end_like_ctrl_c()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_other_signals_interrupt_too_even_in_a_background_job(signum: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signum)
        assert process.stdout.read() == "cleaned up\n"
