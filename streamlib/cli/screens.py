"""What reports of several sub-commands have in common on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

LOG_WIDTH = 160
"""How wide tables are in a log or a pipe."""

Step: TypeAlias = Callable[[str, int], Callable[[int], object]]
"""Begins a step of the work: f(what is done, how much of it there is) -> f(how much more is done)."""


@contextmanager
def progress(console: Console) -> Iterator[Step]:
    """A bar for each step while the block runs; nothing in a log."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:

        def step(what: str, total: int) -> Callable[[int], object]:
            task = bar.add_task(what, total=total or None)
            return lambda done: bar.advance(task, done)

        yield step


def log_or_terminal() -> Console:
    """Standard output, wide enough for tables if it is not a terminal."""
    return Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
