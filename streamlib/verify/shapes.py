"""What of a topic's records can be compared, besides key and value."""

from __future__ import annotations

from collections.abc import Iterable

from streamlib.config import StreamsConfig
from streamlib.engine.plan import Plan, dead_letter_topics
from streamlib.state.buffer import pack_buffered, unpack_buffered
from streamlib.topology.nodes import BufferStoreSpec, StoreSpec, WindowStoreSpec
from streamlib.verify.results import Shape

_TIME_BYTES = 8
_ERROR_TEXTS = frozenset({"__streams.errors.message", "__streams.errors.stacktrace"})


def shapes(plan: Plan, config: StreamsConfig, append_time: Iterable[str] = ()) -> dict[str, Shape]:
    """The topics whose records are not compared as a whole.

    Args:
        plan: tells changelogs.
        config: tells where dead letters go. What an error says may hold addresses in memory, and where it was raised
            depends on the machine.
        append_time: topics whose timestamps the broker sets.
    """
    found = {topic: Shape(ignored_headers=_ERROR_TEXTS) for topic in _dead_letter_topics(plan, config)}
    for topic in append_time:
        found[topic] = found.get(topic, Shape())._replace(timestamps=False)
    for topic, spec in changelogs(plan).items():
        if isinstance(spec, BufferStoreSpec):
            found[topic] = Shape(essence=_without_offset)
    return found


def changelogs(plan: Plan) -> dict[str, StoreSpec]:
    """The store of each changelog, by the topic's name."""
    specs = plan.topology.stores
    return {partition.topic: specs[store] for task in plan.tasks for partition, store in plan.changelogs(task).items()}


def is_comparable(spec: StoreSpec) -> bool:
    """Whether the keys of a changelog's records are the same in every run; not where rows are numbered as they come."""
    return not (isinstance(spec, BufferStoreSpec | WindowStoreSpec) and spec.retain_duplicates)


def _dead_letter_topics(plan: Plan, config: StreamsConfig) -> set[str]:
    return dead_letter_topics(plan.topology, config.error_policies)


def _without_offset(entry: bytes) -> bytes:
    """What waits in a buffer tells the offset of its record, in repartition topics that of another run."""
    buffered = unpack_buffered(entry)
    known = buffered._replace(origin=buffered.origin._replace(offset=0))
    return pack_buffered(known) + entry[-_TIME_BYTES:]
