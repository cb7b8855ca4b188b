"""Why what is there may rightly differ from every replay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from streamlib.engine.plan import Plan
from streamlib.records import TopicPartition
from streamlib.topology import operators as op
from streamlib.topology.nodes import LruStoreSpec, ProcessorNode, RetainedStoreSpec, StoreSpec
from streamlib.topology.operators import Operator
from streamlib.verify.graph import reached
from streamlib.verify.history import Consumed, History
from streamlib.verify.replay import Outcome


class Doubt(msgspec.Struct, frozen=True):
    """Why results may rightly differ from a replay; `final` if nothing is certain even where they agree."""

    text: str
    final: bool = False


class Doubts:
    """The doubts about each subtopology; they hold for all that come after it.

    Args:
        plan: the application's.
        history: what was replayed.
        outcomes: what that led to.
        from_beginning: whether the application has begun where the logs of its inputs begin now.
        cached: whether there are record caches.
    """

    def __init__(
        self,
        plan: Plan,
        history: History,
        outcomes: Sequence[Outcome],
        *,
        from_beginning: bool = False,
        cached: bool = False,
    ) -> None:
        self._doubts: dict[int, set[Doubt]] = defaultdict(set)
        self._spread(plan, _doubts_of_inputs(plan, history, from_beginning=from_beginning))
        self._spread(plan, _doubts_of_stores(plan, cached=cached))
        self._spread(plan, _doubts_of_outcomes(plan, outcomes))

    def about(self, writers: Iterable[int]) -> list[Doubt]:
        """The doubts about what these subtopologies write, the final ones first."""
        found = {doubt for number in writers for doubt in self._doubts[number]}
        return sorted(found, key=lambda doubt: (not doubt.final, doubt.text))

    def _spread(self, plan: Plan, doubts: Iterable[tuple[int, Doubt]]) -> None:
        for number, doubt in doubts:
            for after in reached(plan, [number]):
                self._doubts[after].add(doubt)


def _doubts_of_inputs(plan: Plan, history: History, *, from_beginning: bool) -> Iterable[tuple[int, Doubt]]:
    for partition, consumed in history.inputs.items():
        readers = (
            _readers_of_global_stores(plan)
            if partition in plan.global_inputs
            else [plan.task_of(partition).subtopology]
        )
        for doubt in _doubts_of_input(partition, consumed, from_beginning=from_beginning):
            yield from ((number, doubt) for number in readers)


def _doubts_of_input(partition: TopicPartition, consumed: Consumed, *, from_beginning: bool) -> Iterable[Doubt]:
    if consumed.start > 0 and not from_beginning:
        yield Doubt(
            f"{partition} begins at offset {consumed.start}: what was before may have been processed, and is gone",
            final=True,
        )
    if consumed.latest and consumed.end > consumed.start and not from_beginning:
        yield Doubt(f"{partition} is read from 'latest': where the application began is not known", final=True)
    if consumed.has_holes:
        yield Doubt(f"{partition} is compacted: earlier values of its keys are gone")


def _doubts_of_stores(plan: Plan, *, cached: bool) -> Iterable[tuple[int, Doubt]]:
    for number in {task.subtopology for task in plan.tasks}:
        for spec in plan.stores(next(task for task in plan.tasks if task.subtopology == number)):
            yield from ((number, doubt) for doubt in _doubts_of_store(spec, cached=cached))
    for number in _readers_of_global_stores(plan):
        yield number, Doubt("a global table is read: which of its rows were there at which time is not known")


def _doubts_of_store(spec: StoreSpec, *, cached: bool) -> Iterable[Doubt]:
    if not spec.changelog:
        yield Doubt(f"store {spec.name} has no changelog: what it held is lost with the disk")
    if isinstance(spec, LruStoreSpec):
        yield Doubt(f"store {spec.name} keeps the rows used last: which these are is not kept through a restart")
    if cached and spec.cached and isinstance(spec, RetainedStoreSpec):
        yield Doubt(f"store {spec.name} has a record cache: when it forgets what is late depends on the commits")


def _readers_of_global_stores(plan: Plan) -> list[int]:
    if not plan.global_stores:
        return []
    return [
        number
        for number, nodes in enumerate(plan.subtopologies)
        if any(isinstance(node, ProcessorNode) and _may_read_global_stores(node.operator) for node in nodes.values())
    ]


def _may_read_global_stores(operator: Operator) -> bool:
    return isinstance(operator, op.StreamGlobalTableJoin | op.Process | op.TableTransformValues)


def _doubts_of_outcomes(plan: Plan, outcomes: Sequence[Outcome]) -> Iterable[tuple[int, Doubt]]:
    for number in {number for outcome in outcomes for number in outcome.wall_clock}:
        yield number, Doubt("something is done by the wall clock, which does not move in a replay")
    if outcomes[0].failure is not None:
        text = f"the replay failed where the application has got past: {outcomes[0].failure}"
        yield from ((number, Doubt(text, final=True)) for number in range(len(plan.subtopologies)))
