"""Each operator's rules, one task each."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from streamlib.engine.context import ProcessorContext, TaskFacts
from streamlib.engine.cursor import Cursor
from streamlib.engine.operators import COMPILERS, compile_operator
from streamlib.engine.operators.site import OpenStore, Site, TableRows, Work, fan_out
from streamlib.engine.outbox import Outbox
from streamlib.engine.task import Task
from streamlib.errors import ProcessingError, SerializationError, TopologyError
from streamlib.records import Record, RecordMetadata, TaskId
from streamlib.serdes import Serde
from streamlib.state.memory import InMemoryBackend
from streamlib.state.overlay import Overlay
from streamlib.state.stores import open_rows
from streamlib.topology import operators as op
from streamlib.topology.operators import Operator
from tests.engine.support import (
    INPUT,
    LONG,
    TEXT,
    batch,
    build,
    outputs,
    pairs,
    processor,
    sink,
    source,
    task_of,
    timestamped,
)

NO_ROWS = TableRows(lambda key: None, lambda key: None)


def test_every_operator_has_a_compiler() -> None:
    assert set(COMPILERS) == set(get_args(Operator))


def run(operator: Operator, *records: tuple[str | None, str | None, int]) -> tuple[Task, list[tuple[Any, Any]]]:
    """The pairs that come out of source -> operator -> sink."""
    task = task_of(build([source(), processor("it", operator), sink("it")]))
    task.enqueue(batch(INPUT, 0, *records))
    task.process(100)
    return task, pairs(task)


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (op.PassThrough(), [(b"k", b"abc")]),
        (op.DropNullKeys(), [(b"k", b"abc")]),
        (op.Filter(lambda k, v: v == "abc"), [(b"k", b"abc")]),
        (op.Filter(lambda k, v: v == "abc", negate=True), []),
        (op.MapRecords(lambda k, v: (v, k)), [(b"abc", b"k")]),
        (op.MapValues(str.upper), [(b"k", b"ABC")]),
        (op.MapValues(lambda k, v: k + v, with_key=True), [(b"k", b"kabc")]),
        (op.FlatMap(lambda k, v: [(c, k) for c in v]), [(b"a", b"k"), (b"b", b"k"), (b"c", b"k")]),
        (op.FlatMapValues(list), [(b"k", b"a"), (b"k", b"b"), (b"k", b"c")]),
        (op.FlatMapValues(lambda k, v: [k, v], with_key=True), [(b"k", b"k"), (b"k", b"abc")]),
        (op.SelectKey(lambda k, v: v[0]), [(b"a", b"abc")]),
        (op.Peek(lambda k, v: None), [(b"k", b"abc")]),
        (op.Foreach(lambda k, v: None), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_stateless(operator: Operator, expected: list[tuple[bytes, bytes]]) -> None:
    assert run(operator, ("k", "abc", 5))[1] == expected


def test_drop_null_keys_counts_what_it_drops() -> None:
    task, emitted = run(op.DropNullKeys(), (None, "a", 0), ("k", "b", 0))
    assert emitted == [(b"k", b"b")]
    assert task.dropped == 1


@pytest.mark.parametrize("default", [None, "rest"])
def test_a_branch_goes_to_the_first_that_accepts(default: str | None) -> None:
    predicates = (lambda k, v: v < "b", lambda k, v: v < "c")
    task = task_of(
        build(
            [
                source(),
                processor("split", op.Branch(predicates, ("low", "middle"), default)),
                *(
                    processor(name, op.MapValues(lambda v, n=name: n + v), "split")
                    for name in ("low", "middle", "rest")
                ),
                *(sink(name, name=f"to-{name}") for name in ("low", "middle", "rest")),
            ]
        )
    )
    task.enqueue(batch(INPUT, 0, ("k", "a", 0), ("k", "b", 0), ("k", "c", 0)))
    task.process(10)
    expected = [b"lowa", b"middleb", *([b"restc"] if default else [])]
    assert [value for _, value in pairs(task)] == expected


def test_children_run_depth_first_in_the_order_they_were_attached() -> None:
    seen: list[str] = []
    nodes = [
        source(),
        processor("a", op.Peek(lambda k, v: seen.append("a"))),
        processor("b", op.Peek(lambda k, v: seen.append("b"))),
        processor("a1", op.Peek(lambda k, v: seen.append("a1")), "a"),
        processor("c", op.Peek(lambda k, v: seen.append("c"))),
        processor("a2", op.Peek(lambda k, v: seen.append("a2")), "a"),
    ]
    task = task_of(build(nodes))
    task.enqueue(batch(INPUT, 0, ("k", "v", 0)))
    task.process(1)
    assert seen == ["a", "a1", "a2", "b", "c"]


@pytest.mark.parametrize("value", [LONG, TEXT], ids=["as a long", "as text"])
def test_count(value: Any) -> None:
    # Counts kept as decimal text go the long way round.
    kept = LONG if value is LONG else Serde("decimal", int, lambda count: str(count).encode(), int)
    nodes = [
        source(),
        processor("count", op.StreamCount("counts"), "source", "counts"),
        processor("stream", op.TableToStream(), "count"),
        sink("stream", value=kept),
    ]
    task = task_of(build(nodes, [timestamped("counts", kept)]))
    task.enqueue(batch(INPUT, 0, ("a", "x", 5), ("a", "x", 3), (None, "x", 9), ("b", None, 9), ("b", "x", 1)))
    task.process(10)
    assert outputs(task) == [
        (b"a", kept.encode(1), 5, ()),
        (b"a", kept.encode(2), 5, ()),  # the later of record and row
        (b"b", kept.encode(1), 1, ()),
    ]
    assert task.dropped == 2


def test_aggregate_to_none_deletes_and_starts_again() -> None:
    operator = op.StreamAggregate("sums", lambda: "", lambda k, v, total: None if v == "!" else total + v)
    nodes = [
        source(),
        processor("sum", operator, "source", "sums"),
        processor("stream", op.TableToStream(), "sum"),
        sink("stream"),
    ]
    task = task_of(build(nodes, [timestamped("sums", TEXT)]))
    task.enqueue(batch(INPUT, 0, ("a", "x", 1), ("a", "!", 2), ("a", "y", 3)))
    task.process(10)
    assert pairs(task) == [(b"a", b"x"), (b"a", None), (b"a", b"y")]


def test_reduce_begins_with_the_first_value() -> None:
    nodes = [
        source(),
        processor("reduce", op.StreamReduce("r", lambda total, value: total + value), "source", "r"),
        processor("stream", op.TableToStream(), "reduce"),
        sink("stream"),
    ]
    task = task_of(build(nodes, [timestamped("r", TEXT)]))
    task.enqueue(batch(INPUT, 0, ("a", "x", 1), ("a", "y", 2)))
    task.process(10)
    assert pairs(task) == [(b"a", b"x"), (b"a", b"xy")]


def join_task(table_store: str | None = "rows", left: bool = False) -> Task:
    """in -> join with the table of "rows", seen through a filter and a map that store nothing."""
    connected = [table_store] if table_store else []  # by a store, the join comes into the table's subtopology
    nodes = [
        source(),
        source("table-source", "rows"),
        processor("table", op.TableSource(table_store), "table-source", *connected),
        processor("kept", op.TableFilter("table", lambda k, v: v != "hidden"), "table"),
        processor("mapped", op.TableMapValues("kept", lambda k, v: f"{k}:{v}", with_key=True), "kept"),
        processor("join", op.StreamTableJoin("mapped", lambda v, row: f"{v}+{row}", left), "source", *connected),
        sink("join"),
    ]
    return task_of(build(nodes, [timestamped("rows", TEXT)]))


@pytest.mark.parametrize(
    ("left", "expected", "dropped"),
    [
        (False, [b"x+a:1"], 3),
        (True, [b"x+a:1", b"y+None", b"z+None", b"n+None"], 2),
    ],
)
def test_stream_table_join_looks_through_views(left: bool, expected: list[bytes], dropped: int) -> None:
    task = join_task(left=left)
    rows = next(partition for partition in task.inputs if partition.topic == "rows")
    task.enqueue(batch(rows, 0, ("a", "1", 0), ("b", "hidden", 0), (None, "lost", 0)))
    task.enqueue(batch(INPUT, 0, ("a", "x", 1), ("b", "y", 1), ("c", "z", 1), (None, "n", 1), ("a", None, 1)))
    task.process(10)
    assert [value for _, value in pairs(task)] == expected
    assert task.dropped == dropped


class Forwarder:
    """Forwards to a named child, writes a store, remembers its context."""

    def init(self, context: ProcessorContext) -> None:
        self.context = context
        self.store = context.state_store("rows")

    def process(self, record: Record[str, str]) -> None:
        self.context.forward(record.with_value("to one").with_timestamp(100), "one")
        self.context.forward(record)
        self.store.put(record.key, len(record.value))


def test_a_processor_forwards_to_one_child_or_to_all() -> None:
    supplied = Forwarder()
    nodes = [
        source(),
        processor("p", op.Process(lambda: supplied), "source", "rows"),
        processor("one", op.MapValues(lambda v: f"1{v}"), "p"),
        processor("two", op.MapValues(lambda v: f"2{v}"), "p"),
        sink("one", name="s1"),
        sink("two", name="s2"),
    ]
    task = task_of(build(nodes, [timestamped("rows")]))
    task.enqueue(batch(INPUT, 7, ("k", "v", 5)))
    task.process(1)
    assert outputs(task) == [(b"k", b"1to one", 100, ()), (b"k", b"1v", 5, ()), (b"k", b"2v", 5, ())]
    context = supplied.context
    assert context.record_metadata == RecordMetadata("in", 0, 7)
    assert (context.stream_time_ms, context.task_id, context.application_id) == (5, TaskId(0, 0), "app")
    [(key, _, timestamp, _)] = next(iter(task.seal().changelog.values()))
    assert (key, timestamp) == (b"k", 5)


def test_a_processor_may_only_use_what_it_is_connected_to() -> None:
    supplied = Forwarder()
    with pytest.raises(ProcessingError, match="node p: init raised TopologyError: node p may not use store rows"):
        task_of(build([source(), processor("p", op.Process(lambda: supplied))]))


def test_an_unknown_child_is_an_error_that_names_the_children() -> None:
    supplied = Forwarder()
    nodes = [source(), processor("p", op.Process(lambda: supplied), "source", "rows"), sink("p")]
    task = task_of(build(nodes, [timestamped("rows")]))
    task.enqueue(batch(INPUT, 0, ("k", "v", 5)))
    with pytest.raises(TopologyError, match=r"node p has no child one; its children: \['sink'\]"):
        task.process(1)


@pytest.mark.parametrize(
    "operator",
    [
        op.Filter(lambda k, v: 1 / 0),
        op.Filter(lambda k, v: 1 / 0, negate=True),
        op.MapRecords(lambda k, v: 1 / 0),
        op.MapRecords(lambda k, v: (1, 2, 3)),
        op.MapValues(lambda v: 1 / 0),
        op.MapValues(lambda k, v: 1 / 0, with_key=True),
        op.FlatMap(lambda k, v: (1 / 0 for _ in v)),
        op.FlatMapValues(lambda v: (1 / 0 for _ in v)),
        op.FlatMapValues(lambda k, v: [1 / 0], with_key=True),
        op.SelectKey(lambda k, v: 1 / 0),
        op.Peek(lambda k, v: 1 / 0),
        op.Foreach(lambda k, v: 1 / 0),
        op.Branch((lambda k, v: 1 / 0,), ("sink",)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_user_function_raises_is_chained_and_located(operator: Operator) -> None:
    task = task_of(build([source(), processor("it", operator), sink("it")]))
    task.enqueue(batch(INPUT, 3, ("k", "v", 0)))
    expected = r"node it: .*key 'k'.*while processing topic in, partition 0, offset 3"
    with pytest.raises(ProcessingError, match=expected) as raised:
        task.process(1)
    error = raised.value
    assert isinstance(error.__cause__, ZeroDivisionError | ValueError)
    assert (error.node, error.topic, error.partition, error.offset) == ("it", "in", 0, 3)


def test_what_cannot_be_written_says_how_to_fix_it() -> None:
    with pytest.raises(SerializationError, match=r"node sink cannot write .* 3 \(int\).*\.to\(topic, key=.*offset 0"):
        run(op.MapValues(lambda v: 3), ("k", "v", 0))


def changes(operator: Operator, sends_old: bool, *records: tuple[Any, Any, int]) -> list[tuple[Any, Any]]:
    """What a table operator forwards, as (new, old), called directly."""
    emitted: list[tuple[Any, Any]] = []
    overlay = Overlay("rows", InMemoryBackend())
    spec = timestamped("rows", TEXT)
    stores = {"rows": OpenStore(spec, overlay, open_rows(spec, overlay))}
    facts = TaskFacts("app", TaskId(0, 0), lambda: 0)
    work = Work(Cursor(), Outbox({}), stores, lambda table: NO_ROWS, facts, [], {})

    def collect(key: Any, value: Any, timestamp: int, headers: Any) -> None:
        emitted.append(value)

    site = Site("it", {"collect": collect}, fan_out([collect]), ("rows",), sends_old, work)
    node = compile_operator(operator, site)
    for key, value, timestamp in records:
        node(key, value, timestamp, ())
    return emitted


@pytest.mark.parametrize("sends_old", [False, True])
def test_a_table_source_forwards_the_old_value_where_it_is_asked_for(sends_old: bool) -> None:
    emitted = changes(op.TableSource("rows"), sends_old, ("a", "1", 5), ("a", "2", 3), ("a", None, 4), ("b", None, 4))
    old = ["1", "2"] if sends_old else [None, None]
    assert emitted == [("1", None), ("2", old[0]), (None, old[1]), (None, None)]


@pytest.mark.parametrize("store", [None, "rows"])
def test_a_table_filter_is_silent_about_rows_that_never_passed_only_where_old_values_are_asked_for(
    store: str | None,
) -> None:
    operator = op.TableFilter("t", lambda k, v: v > "5", store=store)
    updates: list[tuple[Any, Any, int]] = [
        ("a", ("1", None), 0), ("a", ("7", "1"), 0), ("a", ("2", "7"), 0), ("a", (None, "2"), 0)
    ]  # fmt: skip
    assert changes(operator, False, *updates) == [(None, None), ("7", None), (None, None), (None, None)]
    assert changes(operator, True, *updates) == [("7", None), (None, "7")]


@pytest.mark.parametrize("store", [None, "rows"])
def test_table_map_values_leaves_deletes_alone(store: str | None) -> None:
    operator = op.TableMapValues("t", lambda v: v + v, store=store)
    updates: list[tuple[Any, Any, int]] = [("a", ("1", None), 0), ("a", (None, "1"), 0)]
    assert changes(operator, False, *updates) == [("11", None), (None, None)]
    assert changes(operator, True, *updates) == [("11", None), (None, "11")]


def test_an_aggregates_old_value_is_what_it_was_before_the_aggregator_changed_it() -> None:
    operator = op.StreamAggregate("rows", lambda: "", lambda k, v, total: total + v)
    assert changes(operator, True, ("a", "x", 0), ("a", "y", 0)) == [("x", ""), ("xy", "x")]
    reduce = op.StreamReduce("rows", lambda total, v: total + v)
    assert changes(reduce, True, ("a", "x", 0), ("a", "y", 0)) == [("x", None), ("xy", "x")]


def test_a_table_without_rows_cannot_be_joined() -> None:
    with pytest.raises(TopologyError, match=r"table \w+ keeps no rows.*store="):
        join_task(table_store=None)
