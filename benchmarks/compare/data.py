"""The records all peers get: each is made from its number, so that an oracle needs no copy of them."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from benchmarks.keyed_count import event
from streamlib.kafka.connection import Connection
from streamlib.kafka.producer import KafkaProducer
from streamlib.kafka.reading import partitions_of
from streamlib.records import OutRecord

WINDOW_MS = 60_000
_SCATTER = 2_654_435_761  # a prime: visits all keys of a partition before it comes back to one
_CHUNK_BYTES = 100_000
_TABLE_IS_OLDER_MS = 1_000


class Data(msgspec.Struct, frozen=True):
    """Records 0 to `records - 1`. Number n is in partition n mod `partitions`, a key's records are all in one.

    `keys` has to be a multiple of `partitions`. Event time goes on by 1 ms per record of a partition, from
    `begins_ms` on, which is the start of a window and not long ago: a broker deletes old records.
    """

    records: int
    keys: int
    partitions: int
    size_bytes: int = 100
    begins_ms: int = 0

    @classmethod
    def of(cls, records: int, keys: int, partitions: int, size_bytes: int = 100) -> Data:
        """With as many keys as fill all partitions evenly, and times of the last hours."""
        now_ms = time.time_ns() // 1_000_000
        longest_ms = records // partitions + 1
        begins_ms = (now_ms - longest_ms) // WINDOW_MS * WINDOW_MS
        return cls(records, max(keys - keys % partitions, partitions), partitions, size_bytes, begins_ms)

    def user(self, number: int) -> str:
        """The key of a record. It comes again every `keys` records."""
        index, partition = divmod(number, self.partitions)
        return f"user-{partition + self.partitions * (index * _SCATTER % (self.keys // self.partitions))}"

    def timestamp(self, number: int) -> int:
        """In ms; ascending within a partition."""
        return self.begins_ms + number // self.partitions

    def window(self, number: int) -> int:
        """Where the window of a record begins, in ms."""
        return self.timestamp(number) // WINDOW_MS * WINDOW_MS

    def event(self, number: int) -> bytes:
        """The value of a record."""
        return event(number, self.user(number), self.size_bytes)

    def record(self, number: int) -> OutRecord:
        """A record as it is written."""
        user = self.user(number)
        return user.encode(), event(number, user, self.size_bytes), self.timestamp(number), ()

    def row(self, number: int) -> OutRecord:
        """The row of the table that has the key of a record; older than all records."""
        user = self.user(number)
        return user.encode(), b'{"city":"%s"}' % city(user).encode(), self.begins_ms - _TABLE_IS_OLDER_MS, ()


def city(user: str) -> str:
    """What the table says of a user."""
    return f"city-{int(user.removeprefix('user-')) * 7 % 1000}"


async def fill(connection: Connection, topic: str, data: Data) -> None:
    """Write all records to a topic."""
    chunk = max(_CHUNK_BYTES // data.size_bytes, 1) * data.partitions
    numbers = (range(begin, min(begin + chunk, data.records)) for begin in range(0, data.records, chunk))
    await _write(connection, topic, data.partitions, ([data.record(n) for n in some] for some in numbers))


async def fill_table(connection: Connection, topic: str, data: Data) -> None:
    """Write one row for each key."""
    rows = [data.row(number) for number in range(data.keys)]
    await _write(connection, topic, data.partitions, [rows])


async def _write(connection: Connection, topic: str, partitions: int, chunks: Iterable[list[OutRecord]]) -> None:
    producer: KafkaProducer = connection.producer(None)
    await producer.init()
    for chunk in chunks:
        for index, partition in enumerate(partitions_of(topic, partitions)):
            if records := chunk[index::partitions]:
                producer.send(partition, records)
                await producer.wait_for_room()
    await producer.flush()
    await producer.close()
