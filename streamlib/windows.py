"""Windows: which of them a record belongs to, and keys that carry one.

    TimeWindows       tumbling and hopping, [start, end)
    UnlimitedWindows  one per key, [start, for ever)
    SlidingWindows    around each record, [end - difference, end], both inclusive
    SessionWindows    records with gaps of at most `gap` between them, [first, last], both inclusive
    JoinWindows       how far apart the records of two streams may be to be joined

All arithmetic is in whole milliseconds. Sources: `TimeWindows`, `SlidingWindows`, `SessionWindows`, `JoinWindows`,
`UnlimitedWindows` of Kafka Streams 4.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from struct import Struct
from typing import Any, Generic, NamedTuple, Self, TypeVar

import msgspec

from streamlib.errors import TopologyError
from streamlib.serdes import Place, Serde, serde_for

K = TypeVar("K")
V = TypeVar("V")

END_OF_TIME_MS = (1 << 63) - 1
"""Where an unlimited window ends, and one of a size that is not known (Java's Long.MAX_VALUE)."""

_MILLISECOND = timedelta(milliseconds=1)
_DAY_MS = 24 * 60 * 60 * 1000
_TIME = Struct(">q")
_TWO_TIMES = Struct(">qq")


def duration_ms(duration: object, what: str, *, positive: bool = False) -> int:
    """A timedelta in whole milliseconds.

    Raises:
        TopologyError: it is no timedelta, negative, finer than a millisecond, or zero where that makes no sense.

    >>> duration_ms(timedelta(seconds=5), "the size of a window")
    5000
    >>> duration_ms(5, "the size of a window")
    Traceback (most recent call last):
    streamlib.errors.TopologyError: the size of a window is a datetime.timedelta such as timedelta(seconds=5), not 5
    """
    if not isinstance(duration, timedelta):
        raise TopologyError(f"{what} is a datetime.timedelta such as timedelta(seconds=5), not {duration!r}")
    milliseconds, rest = divmod(duration, _MILLISECOND)
    if rest:
        raise TopologyError(f"{what} is in whole milliseconds, not {duration}")
    if milliseconds < 0 or (positive and milliseconds == 0):
        raise TopologyError(f"{what} is {'more than zero' if positive else 'not negative'}, not {duration}")
    return milliseconds


class Window(NamedTuple):
    """A span of time in ms since the epoch; whether `end` belongs to it depends on the kind of window.

    >>> Window(0, 5000).end
    5000
    """

    start: int
    end: int


class Windowed(NamedTuple, Generic[K]):
    """A key in a window: the key of a windowed table's rows.

    >>> Windowed("ann", 0, 5000).window
    Window(start=0, end=5000)
    """

    key: K
    start: int
    end: int

    @property
    def window(self) -> Window:
        """The window alone."""
        return Window(self.start, self.end)

    @staticmethod
    def __serde__(key: Any) -> Serde[Windowed[Any]]:
        """What the type hint `Windowed[key]` stands for: keys in time windows of a size that is not known."""
        return time_windowed(key)


class LateRecord(NamedTuple, Generic[K, V]):
    """A record that came after its window had closed; what `on_late=` is called with, once for each such window.

    Attributes:
        key: the record's.
        value: the record's.
        timestamp: the record's time, in ms.
        window: the window it would have counted in; its `end` plus the grace is behind stream time.
        stream_time: the operator's stream time, in ms: the highest timestamp it has accepted.

    >>> from streamlib.testing import run_stream
    >>> second = TimeWindows.of_size(timedelta(seconds=1), grace=timedelta(0))
    >>> def told(late):
    ...     print(late.key, late.timestamp, late.window, late.stream_time)
    >>> def counts(stream):
    ...     windows = stream.group_by_key().windowed_by(second, on_late=told).count()
    ...     return windows.to_stream(lambda window, count: window.key, key=str)
    >>> _ = run_stream(counts, [("a", 1, 5_000), ("a", 1, 100)])
    a 100 Window(start=0, end=1000) 5000
    """

    key: K
    value: V
    timestamp: int
    window: Window
    stream_time: int


class TimeWindows(msgspec.Struct, frozen=True):
    """Windows of a fixed size: tumbling, or hopping with `advance_by`. They start at multiples of the advance.

    >>> tumbling = TimeWindows.of_size(timedelta(seconds=10), grace=timedelta(seconds=1))
    >>> list(tumbling.advance_by(timedelta(seconds=5)).starts(12_000))
    [5000, 10000]
    """

    size_ms: int
    advance_ms: int
    grace_ms: int

    @classmethod
    def of_size(cls, size: timedelta, *, grace: timedelta | None = None) -> Self:
        """Windows of this size, one after the other.

        Args:
            size: how long a window is.
            grace: how late a record may come and still count, measured in stream time from the window's end. It has to
                be said.

        Raises:
            TopologyError: a duration is negative, the size zero, or one is not a timedelta.
        """
        size_ms = duration_ms(size, "the size of a window", positive=True)
        return cls(size_ms, size_ms, _grace_ms(grace))

    def advance_by(self, advance: timedelta) -> TimeWindows:
        """A window every `advance`, so that windows overlap.

        Raises:
            TopologyError: it is zero, or longer than a window, which would leave records out.
        """
        advance_ms = duration_ms(advance, "the advance of windows", positive=True)
        if advance_ms > self.size_ms:
            raise TopologyError(
                f"windows of {self.size_ms} ms cannot advance by {advance_ms} ms: records in between would be lost"
            )
        return msgspec.structs.replace(self, advance_ms=advance_ms)

    def starts(self, timestamp: int) -> Iterator[int]:
        """Where the windows start that a time lies in, the earliest first; none starts before zero."""
        advance = self.advance_ms
        first = max(0, timestamp - self.size_ms + advance) // advance * advance
        return iter(range(first, timestamp + 1, advance))


class UnlimitedWindows(msgspec.Struct, frozen=True):
    """One window per key from a time on, which never closes.

    >>> UnlimitedWindows.of(start_ms=1000).start_ms
    1000
    """

    start_ms: int

    @classmethod
    def of(cls, *, start_ms: int = 0) -> Self:
        """From this time on, in ms since the epoch. Earlier records belong to no window.

        Raises:
            TopologyError: it is negative or no int.
        """
        if start_ms.__class__ is not int or start_ms < 0:
            raise TopologyError(f"the start of unlimited windows is in ms since the epoch, not {start_ms!r}")
        return cls(start_ms)


class SlidingWindows(msgspec.Struct, frozen=True):
    """Windows of records that are at most a difference apart; there is one for each set of records that fit (KIP-450).

    >>> SlidingWindows.of_time_difference(timedelta(seconds=5), grace=timedelta(0)).difference_ms
    5000
    """

    difference_ms: int
    grace_ms: int

    @classmethod
    def of_time_difference(cls, difference: timedelta, *, grace: timedelta | None = None) -> Self:
        """Windows in which the last record is at most `difference` after the first.

        Raises:
            TopologyError: a duration is negative or no timedelta.
        """
        return cls(duration_ms(difference, "the difference of sliding windows"), _grace_ms(grace))


class SessionWindows(msgspec.Struct, frozen=True):
    """Windows that grow while records keep coming.

    >>> SessionWindows.of_inactivity_gap(timedelta(minutes=5), grace=timedelta(0)).gap_ms
    300000
    """

    gap_ms: int
    grace_ms: int

    @classmethod
    def of_inactivity_gap(cls, gap: timedelta, *, grace: timedelta | None = None) -> Self:
        """A session ends when its key has no record for longer than `gap`.

        Raises:
            TopologyError: a duration is negative, the gap zero, or one is not a timedelta.
        """
        return cls(
            duration_ms(gap, "the inactivity gap of sessions", positive=True),
            _grace_ms(grace),
        )


class JoinWindows(msgspec.Struct, frozen=True):
    """For a left record at `t`, right records in `[t - before, t + after]` match.

    `before_ms` and `after_ms` may be negative as long as the window is not empty: a window that lies wholly in the
    past or in the future.

    >>> windows = JoinWindows.of_time_difference(timedelta(seconds=5), grace=timedelta(0)).after(timedelta(seconds=1))
    >>> windows.before_ms, windows.after_ms
    (5000, 1000)
    """

    before_ms: int
    after_ms: int
    grace_ms: int
    is_eager: bool = False

    @classmethod
    def eager(cls, difference: timedelta) -> Self:
        """As Kafka Streams joined before 3.1 (`JoinWindows.of`): a left or outer join emits a record that finds no
        match at once, and again with its match if one comes later. Records may be late for up to 24 hours.

        Raises:
            TopologyError: the duration is negative or no timedelta.

        >>> JoinWindows.eager(timedelta(hours=1)).grace_ms // 3_600_000
        22
        """
        difference_ms = duration_ms(difference, "the difference of a join window")
        return cls(difference_ms, difference_ms, max(_DAY_MS - 2 * difference_ms, 0), is_eager=True)

    @classmethod
    def of_time_difference(cls, difference: timedelta, *, grace: timedelta | None = None) -> Self:
        """Records at most `difference` apart match, whichever came first.

        Raises:
            TopologyError: a duration is negative or no timedelta.
        """
        difference_ms = duration_ms(difference, "the difference of a join window")
        return cls(difference_ms, difference_ms, _grace_ms(grace))

    def before(self, before: timedelta) -> JoinWindows:
        """How far the right record may lie before the left one; negative: how far after it at least."""
        return self._checked(msgspec.structs.replace(self, before_ms=_signed_ms(before)))

    def after(self, after: timedelta) -> JoinWindows:
        """How far the right record may lie after the left one; negative: how far before it at least."""
        return self._checked(msgspec.structs.replace(self, after_ms=_signed_ms(after)))

    @staticmethod
    def _checked(windows: JoinWindows) -> JoinWindows:
        if windows.before_ms + windows.after_ms < 0:
            raise TopologyError(
                f"no right record can be {windows.before_ms} ms before and {windows.after_ms} ms after a left one: "
                "the window is empty"
            )
        return windows


def _grace_ms(grace: object) -> int:
    if grace is None:
        raise TopologyError(
            "windows need a grace: how late a record may be and still count; grace=timedelta(0) if late ones should not"
        )
    return duration_ms(grace, "the grace of a window")


def _signed_ms(duration: object) -> int:
    if isinstance(duration, timedelta) and duration < timedelta(0):
        return -duration_ms(-duration, "the half of a join window")
    return duration_ms(duration, "the half of a join window")


def time_windowed(key: Any, size_ms: int = END_OF_TIME_MS) -> Serde[Windowed[Any]]:
    """Keys in time windows as Kafka Streams writes them: the key's bytes and the start. The end is `start + size_ms`.

    Source: `TimeWindowedSerializer`, `WindowKeySchema`.

    >>> time_windowed(str, 5000).decode(b"ann" + bytes(8))
    Windowed(key='ann', start=0, end=5000)
    """
    inner = serde_for(key)
    encode_key, decode_key, pack, unpack = inner.encode, inner.decode, _TIME.pack, _TIME.unpack_from

    def encode(windowed: Windowed[Any]) -> bytes:
        if windowed.__class__ is not Windowed:
            raise TypeError(f"a windowed key cannot be made of {type(windowed).__name__}")
        return encode_key(windowed.key) + pack(windowed.start)

    def decode(data: bytes) -> Windowed[Any]:
        start = unpack(data, len(data) - 8)[0]
        return Windowed(decode_key(data[:-8]), start, min(start + size_ms, END_OF_TIME_MS))

    return _WindowedSerde(f"time-windowed {inner.name}", Windowed, encode, decode, inner, size_ms)


def session_windowed(key: Any) -> Serde[Windowed[Any]]:
    """Keys in sessions as Kafka Streams writes them: the key's bytes, the end, the start.

    Source: `SessionWindowedSerializer`, `SessionKeySchema`.

    >>> session_windowed(str).encode(Windowed("a", 1, 2))
    b'a\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01'
    """
    inner = serde_for(key)
    encode_key, decode_key, pack, unpack = inner.encode, inner.decode, _TWO_TIMES.pack, _TWO_TIMES.unpack_from

    def encode(windowed: Windowed[Any]) -> bytes:
        if windowed.__class__ is not Windowed:
            raise TypeError(f"a windowed key cannot be made of {type(windowed).__name__}")
        return encode_key(windowed.key) + pack(windowed.end, windowed.start)

    def decode(data: bytes) -> Windowed[Any]:
        end, start = unpack(data, len(data) - 16)
        return Windowed(decode_key(data[:-16]), start, end)

    return _WindowedSerde(f"session-windowed {inner.name}", Windowed, encode, decode, inner)


class _WindowedSerde(Serde[Windowed[Any]], frozen=True):
    """Remembers the serde of the key inside, which is what a windowed record is partitioned by, and how long windows
    are; None for sessions."""

    inner: Serde[Any]
    size_ms: int | None = None

    def at(self, place: Place) -> Serde[Windowed[Any]]:
        """With the serde that keys have at that place."""
        inner = self.inner.at(place)
        if inner is self.inner:
            return self
        return session_windowed(inner) if self.size_ms is None else time_windowed(inner, self.size_ms)


def inner_serde(serde: Serde[Any]) -> Serde[Any] | None:
    """The serde of the key inside windowed keys; None if the keys are not windowed."""
    return serde.inner if isinstance(serde, _WindowedSerde) else None


def window_bytes(serde: Serde[Any]) -> int:
    """How many bytes of a windowed key come after the key inside; none if keys are not windowed.

    >>> window_bytes(time_windowed(str, 5000)), window_bytes(session_windowed(str)), window_bytes(serde_for(str))
    (8, 16, 0)
    """
    if not isinstance(serde, _WindowedSerde):
        return 0
    return _TWO_TIMES.size if serde.size_ms is None else _TIME.size


def window_size_ms(serde: Serde[Any]) -> int | None:
    """How long the windows of windowed keys are, `END_OF_TIME_MS` if that is not known; None for keys of other kinds.

    >>> window_size_ms(time_windowed(str, 5000))
    5000
    """
    return serde.size_ms if isinstance(serde, _WindowedSerde) else None
