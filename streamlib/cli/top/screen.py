"""An application in a terminal, as large as that is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from rich.bar import Bar
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streamlib.snapshots.application import ApplicationSnapshot, TaskRow, WorkerRow
from streamlib.snapshots.worker import Moment

COLOURS = {"ok": "green", "degraded": "yellow", "stuck": "red"}
ROLES = {"active": "blue", "restoring": "yellow", "standby": "dim"}
TICKS = " ▁▂▃▄▅▆▇█"
NARROW = 100
BUSIEST = 8
KEYS = 8


class Screen:
    """What is drawn of a snapshot; with the problem on top if there is no newer one."""

    def __init__(self, seen: ApplicationSnapshot, problem: str = "") -> None:
        self._seen = seen
        self._problem = problem

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        narrow = options.max_width < NARROW
        seen = self._seen
        yield _headline(seen)
        if self._problem:
            yield Text(f"{self._problem}; what follows is as it was", style="bold red")
        for reason in seen.reasons:
            yield Text(f"! {reason}", style=COLOURS.get(seen.health, "red"))
        yield _figures(seen)
        yield _workers(seen.workers, narrow=narrow)
        if coming := [task for task in seen.tasks if task.coming is not None]:
            yield _restores(coming)
        yield _tasks(seen)
        nodes, keys = _nodes(seen), _keys(seen)
        if narrow:
            yield Group(nodes, keys)
        else:
            grid = Table.grid(expand=True, padding=(0, 1))
            grid.add_column(ratio=1)
            grid.add_column(ratio=1)
            grid.add_row(nodes, keys)
            yield grid
        yield _rebalances(seen)


def _headline(seen: ApplicationSnapshot) -> Text:
    text = Text()
    text.append(seen.application_id, style="bold")
    text.append(f"  {seen.health}", style=f"bold {COLOURS.get(seen.health, 'red')}")
    workers, tasks = len(seen.workers), len(seen.tasks)
    facts = f"{workers} worker{'s' * (workers != 1)}, {tasks} task{'s' * (tasks != 1)}, {seen.guarantee}"
    text.append(f"  {facts}  {_clock(seen.at_ms)}", style="dim")
    return text


def _figures(seen: ApplicationSnapshot) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    last = seen.history[-1] if seen.history else None
    rows: list[tuple[str, str, Callable[[Moment], float | None]]] = [
        ("in", f"{_rate(last.rate_in if last else seen.rate_in)}/s", lambda each: each.rate_in),
        ("out", f"{_rate(last.rate_out if last else seen.rate_out)}/s", lambda each: each.rate_out),
        ("lag", f"{seen.lag:,}", lambda each: each.lag),
        (
            "commit",
            f"{_ms(seen.commit_ms[0])}, at most {_ms(seen.commit_ms[1])}; open {_ms(seen.open_transaction_ms)}",
            lambda each: each.commit_ms,
        ),
    ]
    for name, value, pick in rows:
        table.add_row(Text(name, style="dim"), value, Text(spark([pick(each) for each in seen.history]), style="blue"))
    return Panel(table, border_style="dim", padding=(0, 1))


def spark(values: Sequence[float | None], width: int = 40) -> str:
    """The last values as blocks of different heights.

    >>> spark([0, 5, None, 10])
    ' ▄ █'
    """
    shown = values[-width:]
    most = max((value for value in shown if value is not None), default=0) or 1
    return "".join(" " if value is None else TICKS[int(value / most * (len(TICKS) - 1))] for value in shown)


def _workers(workers: Iterable[WorkerRow], *, narrow: bool) -> RenderableType:
    table = _table("worker", "state", "tasks>", "in/s>", "out/s>", "lag>", "busy>", "commit>", "open>", "rebalances>")
    if narrow:
        table = _table("worker", "state", "tasks>", "in/s>", "lag>", "busy>")
    for each in workers:
        name = Text(each.name, style=COLOURS.get(each.health, "red"))
        state = f"no answer since {each.silent_ms / 1000:.0f} s" if each.silent_ms else each.state.lower()
        tasks = f"{each.active}" + (f"+{each.restoring}" if each.restoring else "")
        tasks += f" ({each.standby} standby)" if each.standby and not narrow else ""
        busy = f"{each.busy:.0%}"
        row: list[RenderableType] = [name, state, tasks, _rate(each.rate_in), f"{each.lag:,}", busy]
        if not narrow:
            row.insert(4, _rate(each.rate_out))
            row += [_ms(each.commit_ms[0]), _ms(each.open_transaction_ms), str(each.totals.get("rebalances", 0))]
        table.add_row(*row, style="dim" if each.silent_ms else None)
    return table


def _restores(coming: Iterable[TaskRow]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for task in coming:
        assert task.coming is not None
        done = sum(store.done for store in task.coming.stores)
        whole = done + task.coming.remaining
        left = "" if task.coming.eta_s is None else f"{task.coming.eta_s:,.0f} s left"
        table.add_row(
            Text(f"restoring {task.task} on {task.worker}", style="yellow"),
            ProgressBar(total=whole or 1, completed=done if whole else 1, width=30),
            f"{task.coming.remaining:,} to go",
            left,
        )
    return table


def _tasks(seen: ApplicationSnapshot) -> RenderableType:
    """By worker: those on their way with dots, standbys in parentheses; and the ones that are most behind."""
    table = Table.grid(padding=(0, 2))
    for worker in seen.workers:
        text = Text()
        for task in seen.tasks:
            if task.worker == worker.name:
                text.append(f"{task.task}{'...' if task.coming else ''} ", style=ROLES[task.role])
            elif any(name == worker.name for name, _ in task.standbys):
                text.append(f"({task.task}) ", style=ROLES["standby"])
        table.add_row(Text(worker.name, style="dim"), text)
    behind = sorted((task for task in seen.tasks if task.lag), key=lambda task: -task.lag)[:5]
    if behind:
        table.add_row(Text("behind", style="dim"), ", ".join(f"{task.task} {task.lag:,}" for task in behind))
    return Panel(table, title="tasks", title_align="left", border_style="dim", padding=(0, 1))


def _nodes(seen: ApplicationSnapshot) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="ellipsis", no_wrap=True)
    busiest = sorted((item for item in seen.nodes.items() if item[1].busy), key=lambda item: -item[1].busy)[:BUSIEST]
    for name, node in busiest:
        table.add_row(name, f"{node.busy:.1%}", Bar(busiest[0][1].busy, 0, node.busy, width=12, color="blue"))
    shown = table if busiest else Text("next to nothing to do", style="dim")
    return Panel(shown, title="time per node", title_align="left", border_style="dim", padding=(0, 1))


def _keys(seen: ApplicationSnapshot) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="ellipsis", no_wrap=True)
    hottest = sorted(seen.hot_keys, key=lambda key: -(key.count / key.of if key.of else 0))[:KEYS]
    for key in hottest:
        table.add_row(Text(key.key), f"{key.count / key.of if key.of else 0:.1%}", Text(key.topic, style="dim"))
    shown = table if hottest else Text("no key comes often", style="dim")
    return Panel(shown, title="hot keys", title_align="left", border_style="dim", padding=(0, 1))


def _rebalances(seen: ApplicationSnapshot) -> RenderableType:
    text = Text("rebalances  ", style="dim")
    for each in seen.rebalances[:4]:
        text.append(f"{_clock(each.at_ms)} {each.moving} of {each.tasks} tasks moved   ")
    return text if seen.rebalances else Text("")


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in heads:
        table.add_column(head.rstrip(">"), justify="right" if head.endswith(">") else "left", no_wrap=True)
    return table


def _rate(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 10 else f"{value:,.0f}"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms" if value < 10_000 else f"{value / 1000:,.0f} s"


def _clock(at_ms: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at_ms / 1000))
