"""Joins of two streams: five nodes, two window stores, and one for records that wait if it is no inner join.

left  --> windowed --> join with the right store --+--> merge
right --> windowed --> join with the left store  --+
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from streamlib.dsl.graph import Point
from streamlib.dsl.materialized import Materialized, StoreOption
from streamlib.errors import TopologyError
from streamlib.serdes import Serde, Serdes
from streamlib.topology import operators as op
from streamlib.topology.builder import TopologyBuilder
from streamlib.topology.checks import check_topic_name
from streamlib.topology.nodes import ProcessorNode, StoreSpec, WindowStoreSpec
from streamlib.windows import JoinWindows

JoinStores: TypeAlias = StoreOption | tuple[StoreOption, StoreOption]
"""The store of each side; or one option for both, whose name is then the beginning of theirs."""


class StreamJoin(msgspec.Struct, frozen=True):
    """What the user said about a join of streams."""

    step: str
    joiner: Callable[..., Any]
    with_key: bool
    windows: JoinWindows
    stores: JoinStores
    name: str | None
    result: Serde[Any]

    @property
    def left_outer(self) -> bool:
        """Whether left records without a match are emitted."""
        return self.step != "join"

    @property
    def right_outer(self) -> bool:
        """Whether right records without a match are."""
        return self.step == "outer_join"


class _Names(msgspec.Struct, frozen=True):
    """Names as `KStreamImplJoin` gives them; the stores are called after the numbered ones."""

    left_window: str
    right_window: str
    left: str
    right: str
    merge: str
    left_store: str
    right_store: str
    waiting_store: str


def join_streams(left: Point, right: Point, join: StreamJoin) -> Point:
    """Attach a join to two points that are partitioned alike; returns where its results are.

    Raises:
        TopologyError: the options do not fit.
    """
    builder, windows, options = left.builder, join.windows, _options(join)
    names = _names(left, join, options)
    sources = left.sources | right.sources
    builder.copartition(sources)
    specs = (
        _window_spec(left, options[0], join, names.left_store),
        _window_spec(right, options[1], join, names.right_store),
    )
    if join.step == "join" and left.node == right.node and builder.optimize:
        return _self_join(left, join, names, specs[0])
    corrected = (join.left_outer or join.right_outer) and not windows.is_eager
    waiting = (names.waiting_store,) if corrected else ()
    for spec in (*specs, *(_waiting_spec(options[0], name) for name in waiting)):
        _add_store(builder, spec)
    _add(left, names.left_window, op.StreamJoinWindow(names.left_store), (left.node,), (names.left_store,))
    this = _operator(join, names, waiting, is_left=True)
    _add(left, names.left, this, (names.left_window,), (names.right_store, *waiting))
    _add(left, names.right_window, op.StreamJoinWindow(names.right_store), (right.node,), (names.right_store,))
    other = _operator(join, names, waiting, is_left=False)
    _add(left, names.right, other, (names.right_window,), (names.left_store, *waiting))
    _add(left, names.merge, op.PassThrough(), (names.left, names.right), ())
    return msgspec.structs.replace(left, node=names.merge, value=join.result, sources=sources)


def _operator(join: StreamJoin, names: _Names, waiting: tuple[str, ...], *, is_left: bool) -> op.StreamStreamJoin:
    """One side: the right one sees the window from its end."""
    outer, before_after = (join.left_outer, join.right_outer), (join.windows.before_ms, join.windows.after_ms)
    own, other = (0, 1) if is_left else (1, 0)
    return op.StreamStreamJoin(
        left_store=names.left_store,
        right_store=names.right_store,
        is_left=is_left,
        joiner=join.joiner,
        with_key=join.with_key,
        outer=outer[own],
        other_outer=outer[other],
        before_ms=before_after[own],
        after_ms=before_after[other],
        grace_ms=join.windows.grace_ms,
        waiting=waiting[0] if waiting else None,
    )


def _self_join(point: Point, join: StreamJoin, names: _Names, spec: WindowStoreSpec) -> Point:
    _add_store(point.builder, spec)
    windows = join.windows
    _add(point, names.left_window, op.StreamJoinWindow(spec.name), (point.node,), (spec.name,))
    operator = op.StreamSelfJoin(spec.name, join.joiner, join.with_key, windows.before_ms, windows.after_ms)
    _add(point, names.merge, operator, (names.left_window,), (spec.name,))
    return msgspec.structs.replace(point, node=names.merge, value=join.result)


def _add(point: Point, name: str, operator: op.Operator, parents: tuple[str, ...], stores: tuple[str, ...]) -> None:
    point.builder.add(ProcessorNode(name=name, operator=operator, parents=parents, stores=stores))


def _add_store(builder: TopologyBuilder, spec: StoreSpec) -> None:
    """A store of this join alone: in another one's it would find that one's records."""
    if spec.name in builder.topology.stores:
        raise TopologyError(f"two stores are called {spec.name!r}: give those of one join another name by store=")
    builder.add_store(spec)


def _options(join: StreamJoin) -> tuple[Materialized, Materialized]:
    """How the records of each side are kept."""
    if not isinstance(join.stores, tuple):
        both = Materialized.of(join.stores)
        return both, both
    if len(join.stores) != 2:
        raise TopologyError(f"{join.step}: store= is one option for both sides or a pair, not {join.stores!r}")
    return Materialized.of(join.stores[0]), Materialized.of(join.stores[1])


def _names(left: Point, join: StreamJoin, options: tuple[Materialized, Materialized]) -> _Names:
    builder = left.builder

    def node(prefix: str, suffix: str) -> tuple[str, str]:
        """The node's name, and the one it would have without a given one."""
        generated = builder.name(prefix)
        return (generated if join.name is None else given_name(f"{join.name}{suffix}")), generated

    # A side is called outer if it is the other one that needs no match.
    prefixes = "OUTERTHIS" if join.right_outer else "JOINTHIS", "OUTEROTHER" if join.left_outer else "JOINOTHER"
    suffixes = (
        "-outer-this-join" if join.right_outer else "-this-join",
        "-outer-other-join" if join.left_outer else "-other-join",
    )
    left_window, _ = node("KSTREAM-WINDOWED-", "-this-windowed")
    right_window, _ = node("KSTREAM-WINDOWED-", "-other-windowed")
    this, this_generated = node(f"KSTREAM-{prefixes[0]}-", suffixes[0])
    other, other_generated = node(f"KSTREAM-{prefixes[1]}-", suffixes[1])
    merge, _ = node("KSTREAM-MERGE-", "-merge")
    stores = _store_names(join, options, (this_generated, other_generated), suffixes)
    return _Names(left_window, right_window, this, other, merge, *stores)


def _store_names(
    join: StreamJoin, options: tuple[Materialized, Materialized], generated: tuple[str, str], suffixes: tuple[str, str]
) -> tuple[str, str, str]:
    """Of left, right, and what waits. An option for both sides has the beginning of their names, one of a pair all."""
    first = options[0].name
    shared = "-outer-shared-join" if join.right_outer else "-left-shared-join"
    number = generated[0][-len("-0000000000") :]
    waiting = f"KSTREAM-OUTERSHARED{number}-store" if first is None else f"{first}{shared}-store"
    if isinstance(join.stores, tuple):
        left, right = (option.name or f"{name}-store" for option, name in zip(options, generated, strict=True))
    elif first is None:
        left, right = (f"{name}-store" for name in generated)
    else:
        left, right = (f"{first}{suffix}-store" for suffix in suffixes)
    return left, right, waiting


def _window_spec(point: Point, option: Materialized, join: StreamJoin, name: str) -> WindowStoreSpec:
    """Records are kept as long as one can come that matches. Each has a key of its own in the changelog, so compacting
    it would be in vain (`StreamJoinedStoreFactory`)."""
    for unused in ("retention", "max_entries", "history_retention", "ttl"):
        if getattr(option, unused) is not None:
            raise TopologyError(
                f"store {name}: {unused}= is of no use in a {join.step} of streams, whose windows say which records "
                "are kept and how long; leave it out"
            )
    size_ms = join.windows.before_ms + join.windows.after_ms
    return WindowStoreSpec(
        name=name,
        kind="window",
        key=point.key,
        value=point.value,
        persistent=option.persistent,
        changelog=option.changelog,
        changelog_config={"cleanup.policy": "delete", **option.changelog_config},
        retention_ms=size_ms + join.windows.grace_ms,
        window_size_ms=size_ms,
        retain_duplicates=True,
    )


def _waiting_spec(option: Materialized, name: str) -> StoreSpec:
    """The store of records without a match, kept as those of the left side are; see `state/join_buffer.py`."""
    return StoreSpec(
        name=name,
        kind="key_value",
        key=Serdes.bytes(),
        value=Serdes.bytes(),
        persistent=option.persistent,
        changelog=option.changelog,
        changelog_config=dict(option.changelog_config),
    )


def given_name(name: str) -> str:
    """A node's name that is made from a given one."""
    check_topic_name(name, "a node")
    return name


def check_windows(windows: object, step: str, left: str, right: str) -> JoinWindows:
    """Streams are joined within windows.

    Raises:
        TopologyError: these are none.
    """
    if not isinstance(windows, JoinWindows):
        raise TopologyError(
            f"{step} of {left} with the stream {right} needs JoinWindows, such as "
            f"JoinWindows.of_time_difference(timedelta(minutes=5), grace=timedelta(0)), not {windows!r}"
        )
    return windows
