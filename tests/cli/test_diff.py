"""Each kind of change of a topology is found, told with what it means, and decides about the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamlib import KStream, Materialized, SessionWindows, StreamsBuilder, TimeWindows
from streamlib.cli.diff.changes import Change, compare
from streamlib.cli.diff.screen import as_lines, as_markdown
from streamlib.cli.diff.snapshot import Snapshot, take_snapshot
from streamlib.topology.topology import Topology
from tests.cli.conftest import Command, Write

MINUTE = timedelta(minutes=1)


class Order(msgspec.Struct):
    user: str
    amount: float


class OrderWithCoupon(msgspec.Struct):
    user: str
    amount: float
    coupon: str


class OrderWithDefault(msgspec.Struct):
    user: str
    amount: float
    coupon: str | None = None


Build = Callable[[StreamsBuilder], Any]


def built(build: Build) -> Topology:
    builder = StreamsBuilder()
    build(builder)
    return builder.build()


def changes(before: Build, after: Build, *, application_id: str = "app") -> dict[str, Change]:
    """By kind and subject; the worst of each."""
    old = msgspec.json.decode(take_snapshot(built(before), "app").encoded(), type=Snapshot)
    found = compare(old, built(after), application_id).changes
    return {f"{change.kind} {change.subject}": change for change in reversed(found)}


def words(builder: StreamsBuilder) -> KStream[str, str]:
    return builder.stream("in", key=str, value=str)


def counted(builder: StreamsBuilder) -> None:
    words(builder).group_by(lambda _, v: v).count().to_stream().to("out")


def counted_after_a_filter(builder: StreamsBuilder) -> None:
    words(builder).filter(lambda _, v: v != "").group_by(lambda _, v: v).count().to_stream().to("out")


def kept(type_: Any, store: Any = "orders") -> Build:
    return lambda builder: builder.table("orders", key=str, value=type_, store=store)


def test_the_same_topology_changes_nothing() -> None:
    assert changes(counted, counted) == {}


def test_a_step_that_shifts_generated_names_loses_stores_and_topics_and_is_named() -> None:
    found = changes(counted, counted_after_a_filter)
    store = found["store-renamed KSTREAM-AGGREGATE-STATE-STORE-0000000002"]
    assert (store.level, store.now) == ("breaks", "KSTREAM-AGGREGATE-STATE-STORE-0000000003")
    assert "KSTREAM-FILTER-0000000001 was put in" in store.what
    assert "app-KSTREAM-AGGREGATE-STATE-STORE-0000000002-changelog, which nobody reads" in store.what
    assert "count(store='KSTREAM-AGGREGATE-STATE-STORE-0000000002')" in store.advice
    topic = found["topic-renamed app-KSTREAM-AGGREGATE-STATE-STORE-0000000002-repartition"]
    assert topic.now == "app-KSTREAM-AGGREGATE-STATE-STORE-0000000003-repartition"
    assert "streamlib lag app" in topic.advice
    assert len(found) == 2


def test_the_advice_makes_it_compatible() -> None:
    def named(builder: StreamsBuilder) -> None:
        name = "KSTREAM-AGGREGATE-STATE-STORE-0000000002"
        filtered = words(builder).filter(lambda _, v: v != "")
        filtered.group_by(lambda _, v: v).count(store=name).to_stream().to("out")

    assert changes(counted, named) == {}


def test_a_step_taken_out_shifts_names_too() -> None:
    found = changes(counted_after_a_filter, counted)
    assert "KSTREAM-FILTER-0000000001 was taken out" in next(iter(found.values())).what


def test_a_name_that_another_step_has_now_is_found() -> None:
    """A count more in front has the number of the one behind it: rows of other keys would be counted on."""

    def one(builder: StreamsBuilder) -> None:
        builder.stream("b", key=str, value=str).group_by_key().count().to_stream().to("out")

    def two(builder: StreamsBuilder) -> None:
        builder.stream("a", key=str, value=str).group_by_key().count().to_stream().map_values(str, value=str).to("new")
        one(builder)

    found = changes(one, two)
    assert found["store-taken KSTREAM-AGGREGATE-STATE-STORE-0000000001"].level == "breaks"


def test_a_store_that_is_gone_leaves_its_changelog() -> None:
    found = changes(kept(Order), lambda builder: builder.stream("orders", key=str, value=Order).to("copy"))
    change = found["store-gone orders"]
    assert change.level == "breaks"
    assert "app-orders-changelog" in change.what
    assert found["output-new copy"].level == "new"


def test_a_store_of_another_name_begins_empty() -> None:
    change = changes(kept(Order, "orders"), kept(Order, "latest"))["store-renamed orders"]
    assert (change.level, change.now, change.advice) == ("breaks", "latest", "keep the name 'orders'")


def test_a_new_store_touches_nothing() -> None:
    def with_count(builder: StreamsBuilder) -> None:
        kept(Order)(builder)
        words(builder).group_by_key().count(store="counts")

    found = changes(kept(Order), with_count)
    assert {name: change.level for name, change in found.items()} == {"store-new counts": "new", "input-new in": "new"}


def test_rows_that_cannot_be_read_are_told_by_field() -> None:
    found = changes(kept(Order), kept(OrderWithCoupon))
    assert "field coupon is new and has no default" in found["store-rows orders"].what
    assert found["store-rows orders"].level == "breaks"
    assert found["input-rows orders"].level == "costs"
    assert changes(kept(Order), kept(OrderWithDefault)) == {}


def test_serdes_without_a_shape_are_compared_by_name() -> None:
    def windowed(key: Any) -> Build:
        def build(builder: StreamsBuilder) -> None:
            counts = builder.stream("in", key=key, value=str).group_by_key()
            counts.windowed_by(TimeWindows.of_size(MINUTE, grace=MINUTE)).count(store="c").to_stream().to("out")

        return build

    found = changes(windowed(str), windowed(int))
    assert "its keys were string" in found["output-rows out"].what.replace("time-windowed ", "")
    assert found["output-rows out"].level == "costs"
    assert found["store-rows c"].level == "breaks"


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (TimeWindows.of_size(2 * MINUTE, grace=MINUTE), "windows were 60000 ms long and are 120000 ms"),
        (
            SessionWindows.of_inactivity_gap(MINUTE, grace=MINUTE),
            "it was a timestamped_window store and is a session store",
        ),
    ],
)
def test_windows_of_another_length_or_kind_need_another_store(after: Any, said: str) -> None:
    def counting(windows: Any) -> Build:
        return lambda builder: words(builder).group_by_key().windowed_by(windows).count(store="c")

    change = changes(counting(TimeWindows.of_size(MINUTE, grace=MINUTE)), counting(after))["store-changed c"]
    assert change.level == "breaks"
    assert said in change.what


def test_another_retention_needs_a_setting_of_the_topic() -> None:
    def counting(grace: timedelta) -> Build:
        windows = TimeWindows.of_size(MINUTE, grace=grace)
        return lambda builder: words(builder).group_by_key().windowed_by(windows).count(store="c")

    change = changes(counting(timedelta(0)), counting(timedelta(days=9)))["store-changed c"]
    assert change.level == "costs"
    assert "--topic app-c-changelog --add-config retention.ms=" in change.advice


def test_a_changelog_that_goes_or_comes() -> None:
    without = kept(Order, Materialized(name="orders", changelog=False))
    assert changes(kept(Order), without)["store-changed orders"].level == "breaks"
    assert changes(without, kept(Order))["store-changed orders"].level == "costs"


def test_partitions_of_a_repartition_topic() -> None:
    def split(count: int) -> Build:
        return lambda builder: words(builder).repartition(name="by-user", partitions=count).to("out")

    change = changes(split(4), split(8))["topic-partitions app-by-user-repartition"]
    assert (change.level, "4 before, 8 now" in change.what) == ("breaks", True)


def test_rows_in_a_repartition_topic() -> None:
    def typed(value: Any) -> Build:
        return lambda builder: builder.stream("in", key=str, value=value).repartition(name="by-user").to("out")

    found = changes(typed(Order), typed(OrderWithCoupon))
    assert found["topic-rows app-by-user-repartition"].level == "breaks"


def test_a_repartition_topic_that_is_gone() -> None:
    found = changes(lambda b: words(b).repartition(name="by-user").to("out"), lambda b: words(b).to("out"))
    assert found["topic-gone app-by-user-repartition"].level == "breaks"


def test_inputs_and_outputs_that_go() -> None:
    def two(builder: StreamsBuilder) -> None:
        words(builder).to("out")
        builder.stream("more", key=str, value=str).to("other")

    found = changes(two, lambda builder: words(builder).to("out"))
    assert {name: change.level for name, change in found.items()} == {
        "input-gone more": "costs",
        "output-gone other": "costs",
    }


def test_another_application_id_is_another_application() -> None:
    found = changes(kept(Order), kept(Order), application_id="shop")
    assert [(name, change.level, change.now) for name, change in found.items()] == [
        ("application app", "breaks", "shop")
    ]


def tables(*names: str, changelog: bool = True) -> Build:
    def build(builder: StreamsBuilder) -> None:
        for name in names:
            stream = builder.stream(f"{name}-topic", key=str, value=str, name=name)
            stream.group_by_key().count(store=Materialized(name=name, changelog=changelog))

    return build


def test_tasks_that_get_other_numbers_restore_their_stores() -> None:
    found = changes(tables("b", "c"), tables("a", "b", "c"))
    moved = {name: (change.level, change.now) for name, change in found.items() if change.kind == "tasks-moved"}
    assert moved == {"tasks-moved 0_*": ("costs", "1_*"), "tasks-moved 1_*": ("costs", "2_*")}
    assert "restored" in found["tasks-moved 0_*"].what


def test_tasks_that_move_without_a_changelog_lose_their_stores() -> None:
    found = changes(tables("b", changelog=False), tables("a", "b", changelog=False))
    assert found["tasks-moved 0_*"].level == "breaks"
    assert "b has no changelog" in found["tasks-moved 0_*"].what


def test_a_global_store_is_filled_again() -> None:
    def rates(store: str) -> Build:
        def build(builder: StreamsBuilder) -> None:
            builder.global_table("rates", key=str, value=float, store=store)
            words(builder).to("out")

        return build

    assert changes(rates("a"), rates("b"))["store-renamed a"].level == "costs"


def test_the_worst_comes_first_and_markdown_holds_together() -> None:
    old = take_snapshot(built(counted), "app")
    comparison = compare(old, built(lambda b: words(b).map_values(lambda v: f"{v}|", value=str).to("new")), "app")
    levels = [change.level for change in comparison.changes]
    assert levels == sorted(levels)
    lines = as_lines(comparison).splitlines()
    assert lines[-1] == "NOT COMPATIBLE: what is kept would be lost or misread"
    table = as_markdown(comparison).splitlines()[2:]
    assert {line.count(" | ") for line in table} == {3}


PROGRAM = """
from streamlib import StreamsBuilder

config = {"application_id": "shop"}
builder = StreamsBuilder()
builder.stream("in", key=str, value=str)STEP.group_by_key().count().to_stream().to("out")
"""


@pytest.fixture
def old(write_module: Write, streamlib: Command, tmp_path: Path) -> Path:
    write_module("shop", PROGRAM.replace("STEP", ""))
    file = tmp_path / "topology.json"
    file.write_text(streamlib("topology", "shop:builder", "--json").stdout)
    return file


def test_the_command_compares_with_what_was_written(old: Path, write_module: Write, streamlib: Command) -> None:
    same = streamlib("diff", "topology.json", "shop:builder")
    assert (same.returncode, same.stdout) == (0, "compatible: nothing that is kept is lost\n")
    write_module("shop", PROGRAM.replace("STEP", ".filter(lambda k, v: True)"))
    other = streamlib("diff", "topology.json", "shop:builder", "--json")
    assert other.returncode == 1
    said = json.loads(other.stdout)
    assert (said["compatible"], said["changes"][0]["kind"]) == (False, "store-renamed")
    assert streamlib("diff", "topology.json", "shop:builder", "--markdown").stdout.startswith("**NOT COMPATIBLE")


def test_strict_takes_what_costs_something_for_incompatible(old: Path, write_module: Write, streamlib: Command) -> None:
    write_module("shop", PROGRAM.replace("STEP", "").replace('"out"', '"elsewhere"'))
    assert streamlib("diff", "topology.json", "shop:builder").returncode == 0
    assert streamlib("diff", "topology.json", "shop:builder", "--strict").returncode == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("Topologies:", "is no topology"),
        ('{"format": 99}', "has format 99"),
        ('{"format": 1}', "missing required field"),
    ],
)
def test_what_is_no_topology_is_exit_code_2(content: str | None, said: str, old: Path, streamlib: Command) -> None:
    old.unlink() if content is None else old.write_text(content)
    ran = streamlib("diff", "topology.json", "shop:builder")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_the_format_stays_readable() -> None:
    """What format 1 says: later versions add fields, none goes away."""
    said = json.loads(take_snapshot(built(counted), "app").encoded())
    assert list(said) == [
        "format", "application_id", "subtopologies", "nodes", "stores", "internal_topics", "inputs", "outputs",
    ]  # fmt: skip
    assert said["format"] == 1
    assert said["stores"][0]["changelog"] == "app-KSTREAM-AGGREGATE-STATE-STORE-0000000002-changelog"
    assert said["stores"][0]["rows"]["shape"] == {"key": {"form": "string"}, "value": {"form": "long"}}
