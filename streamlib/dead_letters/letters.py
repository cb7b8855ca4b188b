"""A dead letter, as its headers tell it (KIP-1034), and which ones are asked for."""

from __future__ import annotations

import msgspec

from streamlib.records import FetchedRecord, Headers, OutRecord, TopicPartition

ERROR_HEADERS = "__streams.errors."
"""What the names of the headers begin with that tell of the failure."""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter. What its headers do not tell is None.

    Attributes:
        partition: where it is.
        offset: at which offset there.
        record: the record as it was read when it failed: key, value, timestamp in ms, its own headers.
        exception: the full name of the class.
        message: of the exception.
        stacktrace: of the exception.
        source_topic: where the record was read from.
        source_partition: of that topic.
        source_offset: in that partition.
        node: where in the topology it failed; Kafka Streams does not tell.
        application: whose topology; Kafka Streams does not tell.
    """

    partition: TopicPartition
    offset: int
    record: OutRecord
    exception: str | None
    message: str | None
    stacktrace: str | None
    source_topic: str | None
    source_partition: int | None
    source_offset: int | None
    node: str | None = None
    application: str | None = None

    @classmethod
    def read(cls, partition: TopicPartition, record: FetchedRecord) -> Letter:
        """Separate what is told of the failure from the record itself."""
        told = {
            name.removeprefix(ERROR_HEADERS): value.decode(errors="replace")
            for name, value in record.headers
            if name.startswith(ERROR_HEADERS) and value is not None
        }
        return cls(
            partition=partition,
            offset=record.offset,
            record=(record.key, record.value, record.timestamp, _own(record.headers)),
            exception=told.get("exception"),
            message=told.get("message"),
            stacktrace=told.get("stacktrace"),
            source_topic=told.get("topic"),
            source_partition=_number(told.get("partition")),
            source_offset=_number(told.get("offset")),
            node=told.get("node"),
            application=told.get("application"),
        )

    @property
    def timestamp(self) -> int:
        """The record's, in ms since the epoch."""
        return self.record[2]


class Wanted(msgspec.Struct, frozen=True):
    """Which dead letters are asked for; None is all.

    Attributes:
        exception: the name of the class, with or without its module.
        from_ms: timestamps from here on.
        until_ms: timestamps before this.
    """

    exception: str | None = None
    from_ms: int | None = None
    until_ms: int | None = None

    def __contains__(self, letter: Letter) -> bool:
        if self.exception is not None and not is_named(letter.exception, self.exception):
            return False
        if self.from_ms is not None and letter.timestamp < self.from_ms:
            return False
        return self.until_ms is None or letter.timestamp < self.until_ms


def is_named(exception: str | None, name: str) -> bool:
    """Whether an exception's full name is, or ends with, this one.

    >>> is_named("shop.errors.NoPrice", "NoPrice"), is_named("shop.errors.NoPrice", "Price")
    (True, False)
    """
    return f".{exception or ''}".endswith(f".{name}")


def _own(headers: Headers) -> Headers:
    return tuple(header for header in headers if not header[0].startswith(ERROR_HEADERS))


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
