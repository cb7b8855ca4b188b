"""What one of many applications in one event loop has logged: its tasks carry its journal with them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_JOURNAL: ContextVar[list[logging.LogRecord] | None] = ContextVar("journal", default=None)


class _Writer(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        journal = _JOURNAL.get()
        if journal is not None:
            journal.append(record)


@contextmanager
def journals() -> Iterator[None]:
    """Journals can be kept while this is open, from INFO on."""
    log, writer = logging.getLogger(), _Writer(logging.INFO)
    level = log.level
    log.addHandler(writer)
    log.setLevel(min(level, logging.INFO))
    try:
        yield
    finally:
        log.removeHandler(writer)
        log.setLevel(level)


@contextmanager
def journal() -> Iterator[list[logging.LogRecord]]:
    """What this task, and those that it begins from now on, log."""
    records = list[logging.LogRecord]()
    token = _JOURNAL.set(records)
    try:
        yield records
    finally:
        _JOURNAL.reset(token)


def lines(records: list[logging.LogRecord]) -> str:
    """As text, with times."""
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    return "\n".join(form.format(record) for record in records)
