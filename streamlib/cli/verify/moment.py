"""The offsets of a moment at which nothing is half committed.

The committed offsets of the group say what is processed, the ends of the outputs what is there. Both are asked for one
after the other, while the application may be running: a moment counts if the group has committed nothing in between,
and no transaction of the application had been decided and not yet been written everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import anyio
import msgspec

from streamlib.errors import UnsupportedBrokerError
from streamlib.kafka.connection import Connection
from streamlib.records import TopicPartition

_MARKERS_ON_THEIR_WAY = ("PrepareCommit", "PrepareAbort")
_PAUSE_S = 0.05
_QUIET_S = 2.0


class Moment(msgspec.Struct, frozen=True):
    """Offsets that belong together.

    Attributes:
        committed: what the group has processed up to, exclusive; partitions of which it has not are left out.
        starts: where each log begins.
        ends: where what is committed ends.
        high: where each log ends, open transactions included.
    """

    committed: Mapping[TopicPartition, int]
    starts: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]
    high: Mapping[TopicPartition, int]

    @property
    def blocked(self) -> frozenset[TopicPartition]:
        """Partitions with something behind an open transaction."""
        return frozenset(partition for partition, end in self.ends.items() if end < self.high[partition])


async def quiet_moment(
    connection: Connection,
    application_id: str,
    read: Collection[TopicPartition],
    others: Collection[TopicPartition],
    patience_s: float,
) -> Moment | None:
    """Such a moment; None if there is none for so long.

    Args:
        connection: to the cluster, in the name of the group.
        application_id: what the names of its transactions begin with.
        read: partitions that the group commits offsets of.
        others: further partitions to ask the offsets of.
        patience_s: a transaction over the group's offsets that its owner has left open is waited for.
    """
    with anyio.move_on_after(patience_s):
        before = await _committed(connection, read)
        while True:
            await _until_markers_are_written(connection, application_id)
            starts, ends, high = await _offsets_when_quiet(connection, {*read, *others})
            after = await _committed(connection, read)
            if before == after:
                return Moment(after, starts, ends, high)
            before = after
    return None


async def _committed(connection: Connection, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    found = await connection.group().fetch_offsets(partitions)
    return {partition: each.offset for partition, each in found.items()}


async def _until_markers_are_written(connection: Connection, application_id: str) -> None:
    transactions = connection.transactions()
    while True:
        try:
            names = await transactions.list_ids(states=_MARKERS_ON_THEIR_WAY)
        except UnsupportedBrokerError:
            return  # before 3.0; `_offsets_when_quiet` waits for most of it
        if not any(name.startswith(f"{application_id}-") for name in names):
            return
        await anyio.sleep(_PAUSE_S)


async def _offsets_when_quiet(
    connection: Connection, partitions: Collection[TopicPartition]
) -> tuple[Mapping[TopicPartition, int], ...]:
    """Starts, ends of what is committed, and ends; if possible when no transaction is open."""
    admin = connection.admin()
    give_up_at = anyio.current_time() + _QUIET_S
    while True:
        high = await admin.list_offsets(partitions, "latest")
        ends = await admin.list_offsets(partitions, "latest_stable")
        if all(ends[partition] >= end for partition, end in high.items()) or anyio.current_time() > give_up_at:
            return await admin.list_offsets(partitions, "earliest"), ends, high
        await anyio.sleep(_PAUSE_S)
