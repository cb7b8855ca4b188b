"""Changes of tables as bytes: Kafka Streams' own format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.serdes import Serdes
from streamlib.topology.changes import Change, changes_of

TEXT = changes_of(Serdes.string())


@pytest.mark.parametrize(
    ("change", "data"),
    [
        ((None, "old"), b"old\x00"),
        (("new", None), b"new\x01"),
        (("new", "older"), b"\x06newolder\x02"),
        (("", "o"), b"\x00o\x02"),
        (("n" * 64, ""), b"\x80\x01" + b"n" * 64 + b"\x02"),
    ],
)
def test_bytes_are_those_of_kafka_streams(change: Change, data: bytes) -> None:
    assert TEXT.encode(change) == data
    assert TEXT.decode(data) == change


@pytest.mark.parametrize(
    ("data", "change"),
    [(b"old\x01\x03", (None, "old")), (b"new\x01\x04", ("new", None)), (b"\x06newold\x00\x05", ("new", "old"))],
)
def test_changes_that_say_whether_they_are_the_latest_can_be_read(data: bytes, change: Change) -> None:
    assert TEXT.decode(data) == change


def test_an_unknown_last_byte_is_an_error() -> None:
    with pytest.raises(ValueError, match="ends with the byte 9"):
        TEXT.decode(b"new\x09")


def test_a_change_of_nothing_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="a new or an old value"):
        TEXT.encode((None, None))


@given(st.tuples(st.none() | st.text(), st.none() | st.text()).filter(any))
def test_what_is_written_can_be_read(change: Change) -> None:
    assert TEXT.decode(TEXT.encode(change)) == change
