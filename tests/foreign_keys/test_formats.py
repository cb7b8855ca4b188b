"""What tables joined by foreign key tell each other is what Kafka Streams would say."""

from __future__ import annotations

from struct import pack

import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.foreign_keys import (
    RESPONSES,
    SUBSCRIPTIONS,
    CombinedKey,
    Instruction,
    Response,
    Subscription,
    combined_keys,
    row_hash,
    subscriptions_prefix,
)
from streamlib.serdes import Serdes

HASH = bytes(range(16))


@pytest.mark.parametrize(
    ("data", "halves"),
    [
        (b"21", (5857341059704281894, -5288187638297930763)),
        (b"foobar", (-351361463397418609, 8959716011862540668)),
        (b"a-little-bit-long-string", (8836256500583638442, -198172363548498523)),
        (b"a-little-bit-longer-string", (1838346159335108511, 8794688210320490705)),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", (-4024021876037397259, -1482317706335141238)),
        (b"abc", (1489494923063836066, -5440978547625122829)),
    ],
)
def test_the_library_hashes_as_kafkas_tests_say(data: bytes, halves: tuple[int, int]) -> None:
    """The values of `Murmur3Test.testMurmur3_128`, whose seed is 123."""
    assert mmh3.mmh3_x64_128_stupledigest(data, 123) == halves


def test_a_row_is_hashed_with_kafkas_seed_and_byte_order() -> None:
    assert row_hash(b"foobar") == pack(">qq", *mmh3.mmh3_x64_128_stupledigest(b"foobar", 104729))


@pytest.mark.parametrize(
    ("subscription", "data"),
    [
        (Subscription(Instruction.SUBSCRIBE, HASH, b"key", 7), b"\x01\x03" + HASH + b"key\x00\x00\x00\x07"),
        (Subscription(Instruction.SUBSCRIBE_AND_RESPOND, None, b"key", 0), b"\x81\x02key\x00\x00\x00\x00"),
        (Subscription(Instruction.UNSUBSCRIBE, HASH, b"", 1), b"\x01\x00" + HASH + b"\x00\x00\x00\x01"),
        (Subscription(Instruction.UNSUBSCRIBE_AND_RESPOND, None, b"key", None), b"\x80\x01key"),
    ],
)
def test_subscriptions(subscription: Subscription, data: bytes) -> None:
    assert SUBSCRIPTIONS.encode(subscription) == data
    assert SUBSCRIPTIONS.decode(data) == subscription


@pytest.mark.parametrize(
    ("response", "data"),
    [
        (Response(HASH, b"row"), b"\x00" + HASH + b"row"),
        (Response(HASH, None), b"\x00" + HASH),
        (Response(None, None), b"\x80"),
    ],
)
def test_responses(response: Response, data: bytes) -> None:
    assert RESPONSES.encode(response) == data
    assert RESPONSES.decode(data) == response


def test_where_a_response_goes_is_not_written() -> None:
    assert RESPONSES.encode(Response(HASH, b"row", 3)) == RESPONSES.encode(Response(HASH, b"row"))


def test_an_empty_row_reads_as_none() -> None:
    assert RESPONSES.decode(RESPONSES.encode(Response(HASH, b""))) == Response(HASH, None)


@pytest.mark.parametrize("data", [b"\x02\x00key", b"\x01\x04key\x00\x00\x00\x00"])
def test_a_subscription_of_the_future_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"version 2|Instruction"):
        SUBSCRIPTIONS.decode(data)


def test_a_response_of_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="version 1"):
        RESPONSES.decode(b"\x81")


def test_combined_keys() -> None:
    serde = combined_keys(Serdes.string(), Serdes.long())
    data = b"\x00\x00\x00\x02fk" + b"\x00" * 7 + b"\x05"
    assert serde.encode(CombinedKey("fk", 5)) == data
    assert serde.decode(data) == CombinedKey("fk", 5)


@given(st.binary(max_size=6), st.binary(max_size=6), st.binary(max_size=6))
def test_a_prefix_finds_the_subscriptions_of_its_key_alone(one: bytes, other: bytes, primary_key: bytes) -> None:
    combined = combined_keys(Serdes.bytes(), Serdes.bytes()).encode(CombinedKey(other, primary_key))
    assert combined.startswith(subscriptions_prefix(one)) == (one == other)
