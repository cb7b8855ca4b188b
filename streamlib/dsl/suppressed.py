"""Which changes of a table are held back, for how long, and in how large a buffer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, assert_never

import msgspec

from streamlib.dsl.graph import Point
from streamlib.errors import TopologyError
from streamlib.serdes import Serde
from streamlib.topology import operators as op
from streamlib.topology.builder import TopologyBuilder
from streamlib.topology.nodes import BufferStoreSpec, ProcessorNode
from streamlib.windows import (
    JoinWindows,
    SessionWindows,
    SlidingWindows,
    TimeWindows,
    UnlimitedWindows,
    duration_ms,
    inner_serde,
)


class BufferConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How much may wait, and what happens when more does. Made by `unbounded`, `max_records` or `max_bytes`.

    Attributes:
        record_limit: how many keys may wait; None: any number.
        byte_limit: how much what waits may weigh, keys, values, headers and topic names counted; None: any amount.
        emits_early: over a bound the oldest are passed on early; if not, the task fails.
        changelog: False keeps no copy of the buffer in Kafka: what waits is lost with the disk.
        changelog_config: further settings of the changelog topic.

    >>> BufferConfig.max_records(1000).with_max_bytes(1_000_000).shut_down_when_full().emits_early
    False
    """

    record_limit: int | None = None
    byte_limit: int | None = None
    emits_early: bool = False
    changelog: bool = True
    changelog_config: Mapping[str, str] = {}

    @staticmethod
    def unbounded() -> BufferConfig:
        """Any amount may wait."""
        return BufferConfig()

    @staticmethod
    def max_records(limit: int) -> BufferConfig:
        """So many keys may wait, then the oldest are passed on early.

        Raises:
            TopologyError: it is no number, or negative.
        """
        return BufferConfig(record_limit=_bound(limit), emits_early=True)

    @staticmethod
    def max_bytes(limit: int) -> BufferConfig:
        """So many bytes may wait, then the oldest are passed on early.

        Raises:
            TopologyError: it is no number, or negative.
        """
        return BufferConfig(byte_limit=_bound(limit), emits_early=True)

    def with_max_records(self, limit: int) -> BufferConfig:
        """A bound on the number of keys that wait beside the one there is."""
        return msgspec.structs.replace(self, record_limit=_bound(limit))

    def with_max_bytes(self, limit: int) -> BufferConfig:
        """A bound on the bytes that wait beside the one there is."""
        return msgspec.structs.replace(self, byte_limit=_bound(limit))

    def emit_early_when_full(self) -> BufferConfig:
        """Over a bound the oldest changes are passed on before they are due."""
        return msgspec.structs.replace(self, emits_early=True)

    def shut_down_when_full(self) -> BufferConfig:
        """Over a bound the task fails: nothing is ever passed on before it is due."""
        return msgspec.structs.replace(self, emits_early=False)

    def with_logging_enabled(self, config: Mapping[str, str]) -> BufferConfig:
        """The buffer's changelog topic gets these settings."""
        return msgspec.structs.replace(self, changelog=True, changelog_config=config)

    def with_logging_disabled(self) -> BufferConfig:
        """No copy of the buffer is kept in Kafka."""
        return msgspec.structs.replace(self, changelog=False, changelog_config={})

    def spec(self, name: str, key: Serde[Any], value: Serde[Any]) -> BufferStoreSpec:
        """The store that is the buffer."""
        return BufferStoreSpec(
            name=name,
            key=key,
            value=value,
            changelog=self.changelog,
            changelog_config=dict(self.changelog_config),
        )


UNBOUNDED = BufferConfig.unbounded()


class Suppressed(msgspec.Struct, frozen=True):
    """When a table's changes are passed on; see `KTable.suppress`.

    Attributes:
        limit_ms: how long a key's changes are held back; None: until its window closes.
        buffer: where they wait.
    """

    limit_ms: int | None
    buffer: BufferConfig

    @classmethod
    def until_window_closes(cls, buffer: BufferConfig = UNBOUNDED) -> Suppressed:
        """Only the final result of each window is passed on, once stream time reaches its end and grace.

        Args:
            buffer: one that never emits early, for then the result would not be final.

        Raises:
            TopologyError: the buffer emits early.

        >>> Suppressed.until_window_closes(BufferConfig.max_records(1000).shut_down_when_full()).limit_ms is None
        True
        """
        _check_buffer(buffer)
        if buffer.emits_early:
            raise TopologyError(
                "until_window_closes cannot have a buffer that emits early, for results would not be final: use "
                "BufferConfig.unbounded(), or end the bounds with .shut_down_when_full()"
            )
        return cls(None, buffer)

    @classmethod
    def until_time_limit(cls, limit: timedelta, buffer: BufferConfig) -> Suppressed:
        """A key's changes are passed on as one, when stream time is this much later than the first of them.

        Raises:
            TopologyError: the limit is no timedelta, or negative.

        >>> Suppressed.until_time_limit(timedelta(seconds=5), BufferConfig.max_records(1000)).limit_ms
        5000
        """
        _check_buffer(buffer)
        return cls(duration_ms(limit, "the time limit of a suppression"), buffer)


def suppression(table: Point, suppressed: object, buffer: str) -> op.Suppress:
    """How the changes of a table are held back in a buffer.

    Raises:
        TopologyError: until windows close, but there are none, or it is not known which.
    """
    if not isinstance(suppressed, Suppressed):
        raise TopologyError(
            f"suppress of {table.node} needs Suppressed.until_window_closes(...) or .until_time_limit(...), not "
            f"{suppressed!r}"
        )
    wait_ms = suppressed.limit_ms
    if wait_ms is None:
        wait_ms = _closing_grace_ms(table)
    limits = suppressed.buffer
    return op.Suppress(
        table=table.node,
        buffer=buffer,
        wait_ms=wait_ms,
        until_window_closes=suppressed.limit_ms is None,
        max_records=limits.record_limit,
        max_bytes=limits.byte_limit,
        shut_down=not limits.emits_early,
    )


def _closing_grace_ms(table: Point) -> int:
    """How long after its end a window of this table closes: the longest grace of the windows it is made from, sessions'
    with their gap (`GraphGraceSearchUtil`)."""
    if inner_serde(table.key) is None:
        raise TopologyError(
            f"suppress of {table.node}: its keys are not windowed, so there is no window to close: use "
            "Suppressed.until_time_limit"
        )
    grace = _inherited_grace(table.builder, table.node)
    if grace is None:
        raise TopologyError(
            f"suppress of {table.node}: it is not known when its windows close, since no windowed aggregation is "
            "before it: use Suppressed.until_time_limit"
        )
    return grace


def _inherited_grace(builder: TopologyBuilder, name: str) -> int | None:
    node = builder.node(name)
    if isinstance(node, ProcessorNode):
        grace = _grace_ms(getattr(node.operator, "windows", None))
        if grace is not None:
            return grace
    graces = [_inherited_grace(builder, parent) for parent in builder.parents(name)]
    return max((grace for grace in graces if grace is not None), default=None)


def _grace_ms(
    windows: TimeWindows | UnlimitedWindows | SlidingWindows | SessionWindows | JoinWindows | None,
) -> int | None:
    match windows:
        case None:
            return None
        case TimeWindows() | SlidingWindows() | JoinWindows():
            return windows.grace_ms
        case SessionWindows():
            return windows.gap_ms + windows.grace_ms
        case UnlimitedWindows():
            return 0
        case _:
            assert_never(windows)


def _check_buffer(buffer: object) -> None:
    if not isinstance(buffer, BufferConfig):
        raise TopologyError(f"a suppression needs a BufferConfig, such as BufferConfig.unbounded(), not {buffer!r}")


def _bound(bound: object) -> int:
    if not isinstance(bound, int) or isinstance(bound, bool) or bound < 0:
        raise TopologyError(f"the bound of a suppression buffer is a number from 0 on, not {bound!r}")
    return bound
