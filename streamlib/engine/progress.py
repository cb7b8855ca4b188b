"""Which records of an input are done, where that is more than "all below this offset"; as bytes for commit metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Progress(NamedTuple):
    """All records below `until` are done, but for those at `unfinished`, which ascend from `first` on.

    >>> decode_progress(encode_progress(Progress(100, 250, (100, 101, 240))))
    Progress(first=100, until=250, unfinished=(100, 101, 240))
    """

    first: int
    until: int
    unfinished: tuple[int, ...]


def encode_progress(progress: Progress) -> bytes:
    """As variable-length integers (LEB128): the first offset, how far it goes from there, and each gap."""
    out = bytearray()
    _append(out, progress.first)
    _append(out, progress.until - progress.first)
    before = progress.first
    for offset in progress.unfinished:
        _append(out, offset - before)
        before = offset
    return bytes(out)


def decode_progress(raw: bytes) -> Progress:
    """What `encode_progress` was given.

    Raises:
        ValueError: these are other bytes.
    """
    numbers = _numbers(raw)
    try:
        first = next(numbers)
        until = first + next(numbers)
    except StopIteration:
        raise ValueError("bytes end too early") from None
    return Progress(first, until, tuple(_sums(first, numbers)))


def _append(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _numbers(raw: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in raw:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("bytes end in the middle of a number")


def _sums(start: int, gaps: Iterable[int]) -> Iterator[int]:
    for gap in gaps:
        start += gap
        yield start
