"""Other ways to say Ctrl-C."""

from __future__ import annotations

import signal
from types import FrameType


def end_like_ctrl_c() -> None:
    """From now on SIGTERM and SIGHUP interrupt as SIGINT does, so that everything is cleaned up."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    # A shell starts background jobs with SIGINT ignored, and an ignored signal interrupts nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, interrupt)
