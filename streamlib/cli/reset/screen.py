"""What a reset is about to do, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from streamlib.cli.reset.plan import ResetPlan


def show(plan: ResetPlan, console: Console, *, local_state: bool) -> None:
    """Offsets, topics, folder."""
    if plan.offsets:
        console.print(_offsets(plan))
    for line in _lines(plan, local_state=local_state):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def as_json(plan: ResetPlan, *, local_state: bool) -> Mapping[str, Any]:
    """The same for programs."""
    return {
        "application_id": plan.application_id,
        "offsets": [
            {**partition._asdict(), "committed": plan.committed.get(partition), "offset": offset}
            for partition, offset in sorted(plan.offsets.items())
        ],
        "deleted_topics": list(plan.topics),
        "deleted_state": str(plan.state) if local_state and plan.state.is_dir() else None,
    }


def _offsets(plan: ResetPlan) -> Table:
    table = Table(title=f"application {plan.application_id}", title_justify="left")
    table.add_column("topic", overflow="fold")
    for heading in ("partition", "committed", "will be"):
        table.add_column(heading, justify="right")
    for partition, offset in sorted(plan.offsets.items()):
        committed = plan.committed.get(partition)
        table.add_row(
            partition.topic, str(partition.partition), "none" if committed is None else f"{committed:,}", f"{offset:,}"
        )
    return table


def _lines(plan: ResetPlan, *, local_state: bool) -> Iterator[str]:
    if plan.topics:
        yield "topics that will be deleted, with all that is in them:"
        yield from (f"  {topic}" for topic in plan.topics)
    else:
        yield "there are no internal topics to delete"
    if not local_state:
        yield (
            "local state stays, and does not fit afterwards: before a worker starts again, delete its folder on each "
            f"host, here {plan.state}, or repeat this there with --local-state"
        )
    elif plan.state.is_dir():
        yield f"local state that will be deleted: {plan.state}"
    else:
        yield f"there is no local state on this host, in {plan.state}"
