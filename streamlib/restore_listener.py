"""What an application can hear of its stores being restored and followed."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from streamlib.records import TopicPartition

SuspendReason: TypeAlias = Literal["promoted", "migrated"]
"""Why a standby is followed no longer: its task runs here now, or neither of the two is here any more."""


class RestoreListener(Protocol):
    """Is told how the stores of a worker's tasks come up to their changelogs. Offsets are the changelog's.

    Before a task processes, each of its stores is restored:

        on_restore_start  on_batch_restored ...  on_restore_end
                                                 on_restore_suspended   the task was revoked, or has to begin again

    A store that misses nothing has a start and an end, and nothing in between. Stores of standbys are followed:

        on_update_start   on_batch_loaded ...    on_update_suspended

    A subclass overrides what it wants to hear; the others do nothing. Methods are called in the worker's event loop
    between two records, so they have to return at once. What one raises is logged, and the restore goes on.

    As Kafka Streams' `StateRestoreListener` (KIP-869 for `onRestoreSuspended`) and `StandbyUpdateListener` (KIP-988).

    >>> class Counted(RestoreListener):
    ...     def on_restore_end(self, partition: TopicPartition, store: str, total: int) -> None:
    ...         print(f"{store} of {partition}: {total} records")
    >>> from streamlib import KafkaStreams, StreamsBuilder, StreamsConfig
    >>> builder = StreamsBuilder()
    >>> _ = builder.table("users", key=str, value=str, store="users")
    >>> app = KafkaStreams(builder.build(), StreamsConfig(application_id="app"), restore_listener=Counted())
    >>> Counted().on_restore_end(TopicPartition("app-users-changelog", 0), "users", 3)
    users of app-users-changelog-0: 3 records
    """

    def on_restore_start(self, partition: TopicPartition, store: str, start: int, end: int) -> None:
        """The store is going to be restored from the offset `start` up to `end`, exclusive."""
        return

    def on_batch_restored(self, partition: TopicPartition, store: str, offset: int, count: int) -> None:
        """`count` records more are in the store, which is complete up to `offset`, exclusive."""
        return

    def on_restore_end(self, partition: TopicPartition, store: str, total: int) -> None:
        """The store is complete; `total` records were restored since the start."""
        return

    def on_restore_suspended(self, partition: TopicPartition, store: str, total: int) -> None:
        """The restore ends before the store is complete; the `total` records restored since the start stay."""
        return

    def on_update_start(self, partition: TopicPartition, store: str, start: int) -> None:
        """The store is followed from the offset `start` on."""
        return

    def on_batch_loaded(self, partition: TopicPartition, store: str, offset: int, count: int, end: int) -> None:
        """`count` records more are in the store, which is complete up to `offset`, exclusive; the changelog was last
        known to end at `end`."""
        return

    def on_update_suspended(
        self, partition: TopicPartition, store: str, offset: int, end: int, reason: SuspendReason
    ) -> None:
        """The store is followed no longer; it is complete up to `offset`, exclusive, and stays."""
        return
