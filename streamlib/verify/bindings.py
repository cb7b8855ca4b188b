"""Which traits of a topic count, if all replays agree on them.

Where one partition's records come by themselves, everything is determined. Where records of several partitions meet,
it depends on what becomes of them: from source to sink, each operator says what is left of what was determined above it
(`_after`). Replays can only try a few orders, so a trait counts only where an operator cannot, in between these,
do anything else: a count does not depend on the order at all; a fold that ends the same in opposite orders does not; a
lookup may, for a row may have come and gone between two records.

    at a source              as a set: the same records, in any order, and each partition's in its own
    after a fold             how many, and the last value; of a count all values
    after a join of tables   the last value
    after anything else      nothing
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from streamlib.engine.plan import Plan
from streamlib.topology import operators as op
from streamlib.topology.nodes import Node, ProcessorNode, SinkNode, SourceNode, TtlStoreSpec
from streamlib.topology.operators import Operator
from streamlib.topology.subtopologies import parents_of
from streamlib.verify.comparing import Trait
from streamlib.verify.graph import reached
from streamlib.verify.replay import Outcome
from streamlib.windows import TimeWindows, UnlimitedWindows

Binding: TypeAlias = frozenset[Trait]

ORDERED: Binding = frozenset({Trait.IN_ORDER, Trait.VALUES_IN_ORDER})
AS_A_SET: Binding = frozenset({Trait.ANY_ORDER, Trait.VALUES_ANY_ORDER, Trait.NUMBER})
LAST: Binding = frozenset({Trait.LAST})
NUMBER: Binding = frozenset({Trait.NUMBER})
COUNTS: Binding = frozenset({Trait.COUNTS})
NOTHING: Binding = frozenset()
DETERMINED: Binding = ORDERED | AS_A_SET | LAST


class Bindings:
    """What counts of each topic; `mixed` are the subtopologies where records of several partitions meet, and those
    after them."""

    def __init__(self, plan: Plan, outcomes: Sequence[Outcome]) -> None:
        self.mixed = reached(plan, _where_records_meet(outcomes))
        self._late = _where_some_are_late(outcomes)
        self._plan = plan
        self._topics: dict[str, Binding] = {}  # of repartition topics, then of all
        self._chosen = DETERMINED  # of topics that a function chooses
        self._nodes: dict[str, Binding] = {}
        while self._follow():
            pass

    def of_topic(self, topic: str) -> Binding:
        """What counts of a topic that the topology writes to."""
        return self._topics.get(topic, self._chosen)

    def of_changelog(self, number: int, store: str) -> Binding:
        """What counts of the rows of a subtopology's store."""
        if number not in self.mixed:
            return DETERMINED
        users = [node for node in self._nodes_of(number) if isinstance(node, ProcessorNode) and store in node.stores]
        owners = [node for node in users if getattr(node.operator, "store", None) == store] or users
        return LAST.intersection(*(self._nodes[node.name] for node in owners))

    def of_dead_letters(self, number: int) -> Binding:
        """What counts of the records that fail in a subtopology."""
        return NOTHING if number in self.mixed else DETERMINED

    def _nodes_of(self, number: int) -> Iterable[Node]:
        return self._plan.subtopologies[number].values()

    def _follow(self) -> bool:
        """From all sources to all sinks; whether that told something new of a repartition topic, which is a source."""
        before = dict(self._topics)
        self._topics, self._chosen = {}, DETERMINED
        for number in range(len(self._plan.subtopologies)):
            for node in self._nodes_of(number):
                self._nodes[node.name] = self._of_node(node, number, before)
                if isinstance(node, SinkNode):
                    self._write(node, self._nodes[node.name])
        return self._topics != before

    def _write(self, sink: SinkNode, binding: Binding) -> None:
        if isinstance(sink.topic, str):
            topic = self._plan.full_name(sink.topic)
            self._topics[topic] = self._topics.get(topic, DETERMINED | COUNTS) & binding
        else:
            self._chosen &= binding

    def _of_node(self, node: Node, number: int, topics: Mapping[str, Binding]) -> Binding:
        if number not in self.mixed:
            return DETERMINED
        if isinstance(node, SourceNode):
            read = (topics.get(self._plan.full_name(topic), DETERMINED) for topic in node.topics)
            return (ORDERED | AS_A_SET | LAST if self._is_internal(node) else ORDERED | AS_A_SET).intersection(*read)
        above = (DETERMINED | COUNTS).intersection(*(self._nodes[parent] for parent in parents_of(node)))
        if isinstance(node, SinkNode):
            return above
        if any(isinstance(self._plan.topology.stores[store], TtlStoreSpec) for store in node.stores):
            return NOTHING
        if number in self._late and isinstance(node.operator, op.WindowedFold):
            return NOTHING
        return _after(node.operator, above)

    def _is_internal(self, source: SourceNode) -> bool:
        return any(topic in self._plan.topology.repartition_topics for topic in source.topics)


def _where_records_meet(outcomes: Iterable[Outcome]) -> set[int]:
    """Subtopologies with a task that has read what several partitions or tasks have written."""
    return {task.subtopology for outcome in outcomes for task, sources in outcome.sources.items() if len(sources) > 1}


def _where_some_are_late(outcomes: Sequence[Outcome]) -> set[int]:
    """Subtopologies that drop more in one order than in another. If none is late when the others have all come before,
    none ever is."""
    tasks = {task for outcome in outcomes for task in outcome.dropped}
    return {task.subtopology for task in tasks if len({outcome.dropped.get(task, 0) for outcome in outcomes}) > 1}


def _after(operator: Operator, above: Binding) -> Binding:
    """What is left of what was determined."""
    ordered, as_a_set = above & ORDERED, Trait.ANY_ORDER in above
    match operator:
        case (
            op.PassThrough() | op.Peek() | op.MapValues() | op.TableMapValues() | op.CogroupMerge()
            | op.TableToStream()
        ):  # fmt: skip
            return above
        case op.Filter() | op.Branch() | op.DropNullKeys() | op.FlatMapValues():
            return above - LAST if as_a_set else above & (ORDERED | COUNTS)
        case op.MapRecords() | op.FlatMap() | op.SelectKey():
            return above - LAST - COUNTS if as_a_set else ordered
        case (
            op.StreamCount()
            | op.StreamAggregate()
            | op.StreamReduce()
            | op.WindowedFold(windows=TimeWindows() | UnlimitedWindows())
        ):
            return ordered | _after_fold(operator) if as_a_set else ordered
        case op.TableSource() | op.StreamToTable():
            return ordered | LAST | NUMBER if as_a_set else ordered | (above & LAST)
        case op.TableFilter() | op.TableSelect():
            return ordered | (above & LAST)
        case op.TableAggregate() | op.TableReduce():
            return ordered | (above & (LAST | NUMBER))
        case op.Suppress():
            settled = Trait.LAST in above and _waits_for_windows_alone(operator)
            return ordered | LAST | NUMBER if settled else NOTHING
        case _:
            return _after_join(operator, above)


def _after_fold(operator: op.StreamCount | op.StreamAggregate | op.StreamReduce | op.WindowedFold) -> Binding:
    match operator:
        case op.StreamCount() | op.WindowedFold(fold=op.StreamCount(), on_close=False):
            return LAST | NUMBER | COUNTS
        case _:
            return LAST | NUMBER


def _after_join(operator: Operator, above: Binding) -> Binding:
    match operator:
        case (
            op.TableJoin()
            | op.TableJoinMerge()
            | op.ForeignKeySubscribe()
            | op.ForeignKeyKeep()
            | op.ForeignKeyRespond()
            | op.ForeignKeyNotify()
            | op.ForeignKeyResolve()
        ):
            return above & LAST
        case _:
            # Lookups, joins of streams, processors, sessions, sliding windows: what comes in between matters.
            return NOTHING


def _waits_for_windows_alone(suppress: op.Suppress) -> bool:
    bounded = suppress.max_records is not None or suppress.max_bytes is not None
    return suppress.until_window_closes and (suppress.shut_down or not bounded)
