"""Rows of earlier versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from streamlib import Materialized, StreamsBuilder
from streamlib.errors import TopologyError
from streamlib.row_versions import upgrades, upgrades_of
from streamlib.serdes import MsgspecSerde, Place, Serde, Serdes
from streamlib.testing import TopologyTestDriver

STORE = Place(topic="app-totals-changelog", is_internal=True)
FORMS = [Serdes.json, Serdes.msgpack]


class First(msgspec.Struct):
    amount: float


@upgrades(First, lambda old: Second(round(old.amount * 100)))
class Second(msgspec.Struct):
    cents: int


@upgrades(Second, lambda old: Third(old.cents, "EUR"))
class Third(msgspec.Struct):
    cents: int
    currency: str


@upgrades(Second, lambda old: WithoutFirst(old.cents), version=3)
class WithoutFirst(msgspec.Struct):
    minor_units: int


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_every_version_become_the_newest(form: Any) -> None:
    rows = form(Third).at(STORE)
    assert rows.decode(form(First).at(STORE).encode(First(1.5))) == Third(150, "EUR")
    assert rows.decode(form(Second).at(STORE).encode(Second(150))) == Third(150, "EUR")
    assert rows.decode(rows.encode(Third(150, "USD"))) == Third(150, "USD")


@pytest.mark.parametrize("form", FORMS)
def test_a_version_costs_a_byte_and_the_first_none(form: Any) -> None:
    plain = form(Third).at(Place(topic="out"))
    assert len(form(Third).at(STORE).encode(Third(1, "EUR"))) == len(plain.encode(Third(1, "EUR"))) + 1
    assert form(First).at(STORE).encode(First(1.5)) == form(First).encode(First(1.5))


@pytest.mark.parametrize("form", FORMS)
def test_topics_that_others_read_have_no_versions(form: Any) -> None:
    serde = form(Second).at(Place(topic="out"))
    assert serde.encode(Second(1)) == form(dict).encode({"cents": 1})
    with pytest.raises(msgspec.ValidationError):
        serde.decode(form(dict).encode({"amount": 1.5}))  # what others write is not taken for an old row


@pytest.mark.parametrize("form", FORMS)
def test_keys_have_no_versions(form: Any) -> None:
    key = form(Second).at(Place(topic="app-by-repartition", is_key=True, is_internal=True))
    assert key.encode(Second(1)) == form(dict).encode({"cents": 1})


@pytest.mark.parametrize("form", FORMS)
def test_whoever_does_not_know_the_place_reads_rows_and_topics(form: Any) -> None:
    serde = form(Third)
    assert serde.decode(serde.at(STORE).encode(Third(1, "EUR"))) == Third(1, "EUR")
    assert serde.decode(form(Second).at(STORE).encode(Second(1))) == Third(1, "EUR")
    assert serde.decode(serde.at(Place(topic="out")).encode(Third(1, "EUR"))) == Third(1, "EUR")


@pytest.mark.parametrize("form", FORMS)
def test_a_row_of_a_newer_program_is_said_to_be_one(form: Any) -> None:
    row = form(Third).at(STORE).encode(Third(1, "EUR"))
    with pytest.raises(ValueError, match=r"a row of version 3.*reads versions 1 to 2: a newer program has written it"):
        form(Second).at(STORE).decode(row)


@pytest.mark.parametrize("form", FORMS)
def test_a_version_that_is_not_declared_any_more_is_said(form: Any) -> None:
    serde = form(WithoutFirst).at(STORE)
    assert serde.decode(form(Second).at(STORE).encode(Second(2))) == WithoutFirst(2)

    class Known(msgspec.Struct):
        cents: int

    @upgrades(Known, lambda old: Newest(old.cents), version=3)
    class Newest(msgspec.Struct):
        cents: int

    with pytest.raises(ValueError, match=r"a row of version 1.*reads versions 2 to 3.*@upgrades"):
        form(Newest).at(STORE).decode(form(First).at(STORE).encode(First(1.5)))


def test_an_upgrade_that_raises_says_which() -> None:
    @upgrades(First, lambda old: 1 / 0)
    class Broken(msgspec.Struct):
        cents: int

    with pytest.raises(ValueError, match="a row of version 1 cannot be upgraded to 2: ZeroDivisionError"):
        Serdes.json(Broken).at(STORE).decode(b'{"amount":1.5}')


def test_nothing_is_decoded_from_no_bytes() -> None:
    with pytest.raises(ValueError, match="truncated"):
        Serdes.json(Second).at(STORE).decode(b"")


def test_dicts_and_dataclasses_are_upgraded_too() -> None:
    @upgrades(dict[str, int], lambda old: Counts(old))
    @dataclass
    class Counts:
        by_word: dict[str, int]

    assert Serdes.json(Counts).at(STORE).decode(b'{"a":1}') == Counts({"a": 1})


def test_a_class_that_is_derived_is_another_type() -> None:
    class Derived(Second):
        pass

    assert upgrades_of(Derived) == ()
    assert isinstance(Serdes.json(Derived), MsgspecSerde)


@pytest.mark.parametrize("old", [int, float, str, bytes, None, int | str])
def test_rows_that_cannot_be_told_from_versions_are_refused(old: Any) -> None:
    with pytest.raises(TopologyError, match="cannot be told from versions"):
        upgrades(old, lambda value: value)


@pytest.mark.parametrize(("old", "version"), [(First, 1), (First, 128), (First, "2"), (Second, 2), (Second, 4)])
def test_versions_that_cannot_be_are_refused(old: Any, version: Any) -> None:
    with pytest.raises(TopologyError, match="the version is"):
        upgrades(old, lambda value: value, version=version)


def test_what_is_no_function_or_no_class_is_refused() -> None:
    with pytest.raises(TopologyError, match="needs a function"):
        upgrades(First, 3)  # type: ignore[arg-type]
    with pytest.raises(TopologyError, match="for classes"):
        upgrades(First, Second)(lambda: None)  # type: ignore[arg-type]


# --- in every kind of store -------------------------------------------------------------------------------------------


def _aggregated(store: Any, value: Serde[Any], result: Any) -> StreamsBuilder:
    builder = StreamsBuilder()
    amounts = builder.stream("in", key=str, value=float)
    table = amounts.group_by_key().aggregate(
        lambda: None, lambda _, amount, total: result(amount, total), value=value, store=store
    )
    table.to_stream().to("out", value=value)
    return builder


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", [{}, {"persistent": False}, {"max_entries": 9}])
def test_a_table_goes_on_from_rows_of_the_version_before(form: Any, options: Any) -> None:
    """What a changelog or a disk has is what the store's serde wrote: the topology before it, here."""
    old = form(First).at(STORE).encode(First(1.5))
    builder = _aggregated(
        Materialized(name="totals", **options),
        form(Second),
        lambda amount, total: Second((total.cents if total else 0) + round(amount * 100)),
    )
    with TopologyTestDriver(builder.build()) as driver:
        rows = driver.input_topic("in", key=str, value=float)
        rows.pipe_input("ann", 1.0)
        assert driver.store("totals").get("ann") == Second(100)
        (task,) = driver._tasks.values()
        store = task._stores["totals"]
        written = store.overlay.get(b"ann") or b""
        assert written.endswith(form(Second).at(STORE).encode(Second(100)))
        store.overlay.put_at(b"ann", written[:8] + old, 0)
        rows.pipe_input("ann", 1.0)
        out = driver.output_topic("out", key=str, value=form(Second)).read_values()
        assert out == [Second(100), Second(250)]
