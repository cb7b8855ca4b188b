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
    builder, windows = left.builder, join.windows
    names = _names(left, join)
    sources = left.sources | right.sources
    builder.copartition(sources)
    specs = _window_specs(left, right, join, names)
    if join.step == "join" and left.node == right.node and builder.optimize:
        return _self_join(left, join, names, specs[0])
    for spec in specs:
        builder.add_store(spec)
    corrected = (join.left_outer or join.right_outer) and not windows.is_eager
    waiting = (names.waiting_store,) if corrected else ()
    if corrected:
        builder.add_store(_waiting_spec(specs[0], names.waiting_store))
    for point, is_left in ((left, True), (right, False)):
        own, other = specs if is_left else (specs[1], specs[0])
        window = names.left_window if is_left else names.right_window
        _add(point, window, op.StreamJoinWindow(own.name), (point.node,), (own.name,))
        operator = op.StreamStreamJoin(
            left_store=specs[0].name,
            right_store=specs[1].name,
            is_left=is_left,
            joiner=join.joiner,
            with_key=join.with_key,
            outer=join.left_outer if is_left else join.right_outer,
            before_ms=windows.before_ms if is_left else windows.after_ms,
            after_ms=windows.after_ms if is_left else windows.before_ms,
            grace_ms=windows.grace_ms,
            waiting=names.waiting_store if corrected else None,
        )
        _add(point, names.left if is_left else names.right, operator, (window,), (other.name, *waiting))
    _add(left, names.merge, op.PassThrough(), (names.left, names.right), ())
    return msgspec.structs.replace(left, node=names.merge, value=join.result, sources=sources)


def _self_join(point: Point, join: StreamJoin, names: _Names, spec: WindowStoreSpec) -> Point:
    point.builder.add_store(spec)
    windows = join.windows
    _add(point, names.left_window, op.StreamJoinWindow(spec.name), (point.node,), (spec.name,))
    operator = op.StreamSelfJoin(spec.name, join.joiner, join.with_key, windows.before_ms, windows.after_ms)
    _add(point, names.merge, operator, (names.left_window,), (spec.name,))
    return msgspec.structs.replace(point, node=names.merge, value=join.result)


def _add(point: Point, name: str, operator: op.Operator, parents: tuple[str, ...], stores: tuple[str, ...]) -> None:
    point.builder.add(ProcessorNode(name=name, operator=operator, parents=parents, stores=stores))


def _names(left: Point, join: StreamJoin) -> _Names:
    builder = left.builder

    def node(prefix: str, suffix: str) -> tuple[str, str]:
        """The node's name, and the one it would have without a given one."""
        generated = builder.name(prefix)
        return (generated if join.name is None else given_name(f"{join.name}{suffix}")), generated

    left_window, _ = node("KSTREAM-WINDOWED-", "-this-windowed")
    right_window, _ = node("KSTREAM-WINDOWED-", "-other-windowed")
    # A side is called outer if it is the other one that needs no match.
    left_prefix, left_suffix = ("OUTERTHIS", "-outer-this-join") if join.right_outer else ("JOINTHIS", "-this-join")
    right_prefix, right_suffix = (
        ("OUTEROTHER", "-outer-other-join") if join.left_outer else ("JOINOTHER", "-other-join")
    )
    this, this_generated = node(f"KSTREAM-{left_prefix}-", left_suffix)
    other, other_generated = node(f"KSTREAM-{right_prefix}-", right_suffix)
    merge, _ = node("KSTREAM-MERGE-", "-merge")
    base = None if isinstance(join.stores, tuple) else Materialized.of(join.stores).name
    shared = "-outer-shared-join" if join.right_outer else "-left-shared-join"
    number = this_generated.rpartition("-")[2]
    return _Names(
        left_window,
        right_window,
        this,
        other,
        merge,
        f"{this_generated if base is None else base + left_suffix}-store",
        f"{other_generated if base is None else base + right_suffix}-store",
        f"{f'KSTREAM-OUTERSHARED-{number}' if base is None else base + shared}-store",
    )


def _window_specs(left: Point, right: Point, join: StreamJoin, names: _Names) -> list[WindowStoreSpec]:
    pair = isinstance(join.stores, tuple)
    options = join.stores if isinstance(join.stores, tuple) else (join.stores, join.stores)
    return [
        _window_spec(point, Materialized.of(option), join, name, named=pair)
        for point, option, name in zip((left, right), options, (names.left_store, names.right_store), strict=True)
    ]


def _window_spec(
    point: Point, materialized: Materialized, join: StreamJoin, generated: str, *, named: bool
) -> WindowStoreSpec:
    windows = join.windows
    needed_ms = windows.before_ms + windows.after_ms + windows.grace_ms
    return WindowStoreSpec(
        name=materialized.name if named and materialized.name is not None else generated,
        kind="window",
        key=point.key,
        value=point.value,
        persistent=materialized.persistent,
        changelog=materialized.changelog,
        changelog_config=dict(materialized.changelog_config),
        retention_ms=needed_ms,
        window_size_ms=windows.before_ms + windows.after_ms,
        retain_duplicates=True,
    )


def _waiting_spec(like: WindowStoreSpec, name: str) -> StoreSpec:
    return StoreSpec(
        name=name,
        kind="key_value",
        key=Serdes.bytes(),
        value=Serdes.bytes(),
        persistent=like.persistent,
        changelog=like.changelog,
        changelog_config=like.changelog_config,
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
