"""What the workers are doing: a small live table on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeAlias

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streamlib.cli.supervisor import Phase, WorkerView

Views: TypeAlias = Callable[[], Sequence[WorkerView]]
"""Asked for the present state at each refresh."""

Headline: TypeAlias = Callable[[], str]
"""A line of text above the table, asked for at each refresh."""

_REFRESHES_PER_SECOND = 4
_RATE_SECONDS = 2.0


class Sum(msgspec.Struct, frozen=True):
    """All workers together."""

    tasks: int
    records_in: int
    records_out: int
    commits: int
    lag: int
    restarts: int
    restoring: dict[str, int]

    @classmethod
    def of(cls, views: Iterable[WorkerView]) -> Sum:
        """Adds them up; a worker that has not reported yet counts with what its earlier lives did."""
        views = list(views)
        statuses = [view.report.status for view in views if view.report]
        return cls(
            tasks=sum(len(status.tasks) for status in statuses),
            records_in=sum(view.totals.records_in for view in views),
            records_out=sum(view.totals.records_out for view in views),
            commits=sum(view.totals.commits for view in views),
            lag=sum(status.lag for status in statuses),
            restarts=sum(view.restarts for view in views),
            restoring={task: left for status in statuses for task, left in status.restoring.items()},
        )


class Rate:
    """Records per second over the last moments."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []  # oldest first, none older than needed

    def update(self, now_s: float, count: int) -> float:
        """Takes the count of now; returns the rate. A count that fell (a worker's last moments) counts as still."""
        self._samples.append((now_s, count))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - _RATE_SECONDS:
            del self._samples[0]
        then_s, before = self._samples[0]
        return max(count - before, 0) / (now_s - then_s) if now_s > then_s else 0.0


class Restoring:
    """How far each task's restore has come; its size is what was left when it was first seen."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    def update(self, left: dict[str, int]) -> dict[str, float]:
        """The finished part of each task that is restoring, 0 to 1."""
        self._sizes = {task: max(n, self._sizes.get(task, 1)) for task, n in left.items()}
        return {task: 1 - n / self._sizes[task] for task, n in left.items()}


class View:
    """Shows the workers while the block runs.

        with View(lambda: supervisor.views, console):
            supervisor.wait()

    On a terminal the table is drawn below whatever is printed; otherwise `log_line` gets a line `every_s`. With `json`
    it is an object a line on standard output, one more at the end.
    """

    def __init__(
        self,
        views: Views,
        console: Console,
        *,
        headline: Headline | None = None,
        log_line: Callable[[str], None] | None = None,
        every_s: float = 5.0,
        json: bool = False,
    ) -> None:
        self._views = views
        self._headline = headline
        self._log_line = log_line or (lambda line: print(line, file=sys.stderr, flush=True))
        self._every_s = every_s
        self._json = json
        self._rate = Rate()
        self._restoring = Restoring()
        self._over = threading.Event()
        self._live: Live | None = None
        self._thread: threading.Thread | None = None
        if console.is_terminal and not json:
            self._live = Live(
                console=console,
                get_renderable=self.table,
                refresh_per_second=_REFRESHES_PER_SECOND,
                redirect_stdout=sys.stdout.isatty(),
                transient=False,
            )
        else:
            self._thread = threading.Thread(target=self._log, name="view", daemon=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start(refresh=True)
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._live is not None:
            self._live.stop()
        if self._thread is not None:
            self._thread.join()

    def table(self) -> RenderableType:
        """The live view."""
        views = self._views()
        total = Sum.of(views)
        rate = self._rate.update(time.monotonic(), total.records_in)
        parts: list[RenderableType] = [Text(self._headline())] if self._headline else []
        parts.append(_worker_table(views, total, rate))
        for task, part in self._restoring.update(total.restoring).items():
            parts.append(_restore_bar(task, part, total.restoring[task]))
        return Group(*parts)

    def line(self) -> str:
        """The same for a log."""
        views = self._views()
        total = Sum.of(views)
        rate = self._rate.update(time.monotonic(), total.records_in)
        parts = [self._headline()] if self._headline else []
        tasks = "+".join(str(len(view.report.status.tasks) if view.report else 0) for view in views)
        parts.append(f"tasks {tasks}")
        parts.append(f"in {total.records_in:,} ({rate:,.0f}/s)")
        parts.append(f"out {total.records_out:,}")
        parts.append(f"lag {total.lag:,}")
        parts.append(f"commits {total.commits:,}")
        if total.restarts:
            parts.append(f"restarts {total.restarts}")
        for task, part in self._restoring.update(total.restoring).items():
            parts.append(f"restoring {task} {part:.0%} ({total.restoring[task]:,} left)")
        return "  ".join(parts)

    def as_json(self) -> str:
        """The same for a program."""
        views = self._views()
        total = Sum.of(views)
        rate = self._rate.update(time.monotonic(), total.records_in)
        workers = [
            {
                "worker": view.index + 1,
                "pid": view.pid,
                "state": _state(view),
                "tasks": view.report.status.tasks if view.report else (),
                "restarts": view.restarts,
            }
            for view in views
        ]
        told = {**msgspec.structs.asdict(total), "records_in_per_s": round(rate, 1), "workers": workers}
        return msgspec.json.encode(told).decode()

    def _log(self) -> None:
        while not self._over.wait(self._every_s):
            self._tell()
        if self._json:
            self._tell()

    def _tell(self) -> None:
        if self._json:
            print(self.as_json(), flush=True)
        else:
            self._log_line(self.line())


_COLUMNS = ("worker", "pid", "state", "tasks", "in", "out", "lag", "commits", "redone", "restarts")


def _worker_table(views: Sequence[WorkerView], total: Sum, rate: float) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in ("worker", "state", "tasks") else "right")
    for view in views:
        table.add_row(*_cells(view))
    if len(views) > 1:
        table.add_row(
            "all", "", f"{rate:,.0f}/s", str(total.tasks), f"{total.records_in:,}", f"{total.records_out:,}",
            f"{total.lag:,}", f"{total.commits:,}", "", str(total.restarts), style="bold",
        )  # fmt: skip
    return table


def _cells(view: WorkerView) -> list[str]:
    status = view.report.status if view.report else None
    return [
        str(view.index + 1),
        "" if view.pid is None else str(view.pid),
        _state(view),
        " ".join(status.tasks) if status else "",
        f"{view.totals.records_in:,}",
        f"{view.totals.records_out:,}",
        f"{status.lag:,}" if status else "",
        f"{view.totals.commits:,}",
        str(status.redone) if status else "",
        str(view.restarts),
    ]


def _state(view: WorkerView) -> str:
    if view.phase is Phase.RUNNING and view.report and not view.report.running:
        return "rebalancing"
    return view.phase.value


def _restore_bar(task: str, part: float, left: int) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(f"restoring {task}", ProgressBar(total=1.0, completed=part, width=30), f"{left:,} records left")
    return grid
