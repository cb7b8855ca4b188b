"""Which subtopologies come after which."""

from __future__ import annotations

from collections.abc import Iterable

from streamlib.engine.plan import Plan
from streamlib.records import TopicPartition
from streamlib.topology.nodes import SinkNode


def reached(plan: Plan, numbers: Iterable[int]) -> frozenset[int]:
    """These subtopologies and all that read what they write, and so on."""
    found, waiting = set[int](), list(numbers)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += _readers(plan, number)
    return frozenset(found)


def _readers(plan: Plan, number: int) -> set[int]:
    """The subtopologies that read what this one writes to repartition topics."""
    topics = (node.topic for node in plan.subtopologies[number].values() if isinstance(node, SinkNode))
    names = (plan.full_name(topic) for topic in topics if isinstance(topic, str))
    return {plan.task_of(TopicPartition(name, 0)).subtopology for name in names if name in plan.repartition_topics}
