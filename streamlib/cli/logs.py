"""Where log lines go: standard error, one line for each event."""

from __future__ import annotations

import logging
import sys
from typing import Literal, TypeAlias, get_args

from rich.console import Console
from rich.logging import RichHandler

from streamlib.cli.errors import UsageError

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_NOISY = ("aiokafka", "asyncio")


def set_up_logs(level: str, console: Console | None = None) -> None:
    """Send log lines to standard error; to `console` if that is a terminal.

    Raises:
        UsageError: there is no such level.
    """
    if level.lower() not in get_args(LogLevel):
        raise UsageError(f"unknown log level {level!r}: choose one of {', '.join(get_args(LogLevel))}")
    console = console or Console(stderr=True)
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, omit_repeated_times=False)
        handler.setFormatter(_OneLine("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_OneLine(_FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _NOISY:  # their retries are ours to report
        logging.getLogger(name).setLevel(max(logging.ERROR, root.level))


class _OneLine(logging.Formatter):
    """A message that has line breaks is still one event, so it is still one line; a traceback is not touched."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = " ".join(record.message.split("\n"))
        return super().formatMessage(record)
