"""Groups in a few words, and what was decided about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from streamlib.engine.assignment import Decision, Member
from streamlib.records import TaskId

FAR = 1_000_000
"""The end of a changelog that takes long to restore."""


def tasks(*shape: int) -> list[TaskId]:
    """So many tasks of each subtopology."""
    return [TaskId(sub, partition) for sub, count in enumerate(shape) for partition in range(count)]


def task(text: str) -> TaskId:
    sub, partition = text.split("_")
    return TaskId(int(sub), int(partition))


def some(text: str) -> frozenset[TaskId]:
    return frozenset(map(task, text.split()))


def far(all_tasks: Iterable[TaskId]) -> dict[TaskId, int | None]:
    """Ends of the changelogs of tasks whose stores take long to restore."""
    return dict.fromkeys(all_tasks, FAR)


def member(
    name: str,
    owned: str = "",
    follows: str = "",
    *,
    stored: Mapping[str, int] | None = None,
    process: str = "",
    host: str = "",
    tags: Mapping[str, str] | None = None,
    capacity: int = 1,
    leaving: bool = False,
    warmed_up: str = "",
) -> Member:
    """Who owns tasks and follows others; its stores of all these are complete unless `stored` says how far they are."""
    positions = dict.fromkeys(some(owned) | some(follows), FAR)
    positions |= {task(text): position for text, position in (stored or {}).items()}
    return Member(
        member_id=name,
        process=process or f"process of {name}",
        host=host,
        tags=tags or {},
        capacity=capacity,
        owned=some(owned),
        generation=1,
        positions=positions,
        followed=some(follows),
        leaving=leaving,
        warmed_up=some(warmed_up),
    )


def _texts(chosen: Iterable[TaskId]) -> str:
    return " ".join(map(str, sorted(chosen)))


def actives(decision: Decision) -> dict[str, str]:
    return {name: _texts(share.active) for name, share in decision.shares.items()}


def standbys(decision: Decision) -> dict[str, str]:
    return {name: _texts(share.standby) for name, share in decision.shares.items()}


def warmups(decision: Decision) -> dict[str, str]:
    return {name: _texts(share.warmup) for name, share in decision.shares.items()}


def withheld(decision: Decision) -> str:
    return _texts(decision.withheld)
