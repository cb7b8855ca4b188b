"""Operators put together in ways that the first recordings do not have; these were recorded in the same way."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from streamlib import (
    BufferConfig,
    EmitStrategy,
    JoinWindows,
    KTable,
    Materialized,
    SessionWindows,
    SlidingWindows,
    StreamsBuilder,
    Suppressed,
    TimeWindows,
)
from tests.conformance.ported.registry import dsl, shown, texts


def ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def table(builder: StreamsBuilder, topic: str, **options: Any) -> KTable[str, str]:
    return builder.table(topic, key=str, value=str, **options)


def word(value: str | None) -> str:
    return "nul" if value is None else value.partition(":")[0]


def letters(_: str, value: Any, aggregate: Any) -> str | None:
    """Adds the value's first letter; a null value takes the aggregate away."""
    return None if value is None else shown(aggregate) + word(value)[0]


def up_to_five_letters(_: str, value: Any, aggregate: Any) -> str | None:
    return None if aggregate is not None and len(aggregate) > 4 else shown(aggregate) + word(value)[0]


def is_red(_: Any, value: Any) -> bool:
    return value is not None and value.startswith("red")


def joined(left: object, right: object) -> str:
    return f"{shown(left)}+{shown(right)}"


@dsl
def session_regroup(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(SessionWindows.of_inactivity_gap(ms(5000), grace=ms(6000))).count(
        store="s"
    ).group_by(lambda k, v: ("low" if k.key <= "b" else "high", v), key=str, value=int).reduce(
        lambda a, v: a + v, lambda a, v: a - v
    ).to_stream().to("out")


@dsl
def session_suppress_plain(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(
        SessionWindows.of_inactivity_gap(ms(3000), grace=ms(2000))
    ).count().suppress(Suppressed.until_window_closes(BufferConfig.unbounded())).to_stream(
        lambda k, v: k.key, key=str
    ).group_by_key().reduce(lambda a, v: a + v).to_stream().to("out")


@dsl
def hopping_time_limit(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(
        TimeWindows.of_size(ms(10000), grace=ms(5000)).advance_by(ms(4000))
    ).count().suppress(
        Suppressed.until_time_limit(ms(3000), BufferConfig.max_records(6).emit_early_when_full())
    ).to_stream().to("out")


@dsl
def sliding_reduce_chain(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(SlidingWindows.of_time_difference(ms(5000), grace=ms(4000))).reduce(
        lambda x, y: x + "|" + y
    ).filter(lambda k, v: len(v) < 40).map_values(lambda v: v + "!").to_stream().to("out")


@dsl
def left_join_count(b: StreamsBuilder) -> None:
    texts(b, "left").left_join(
        texts(b, "right"), joined, JoinWindows.of_time_difference(ms(3000), grace=ms(2000)), result=str
    ).group_by(lambda k, v: "lonely" if v.endswith("null") else "paired").count().to_stream().to("out")


@dsl
def outer_join_tumbling_close(b: StreamsBuilder) -> None:
    texts(b, "left").select_key(lambda k, v: word(v)).outer_join(
        texts(b, "right").select_key(lambda k, v: word(v)),
        joined,
        JoinWindows.of_time_difference(ms(4000), grace=ms(1000)),
    ).group_by_key().windowed_by(TimeWindows.of_size(ms(8000), grace=ms(3000))).emit_strategy(
        EmitStrategy.on_window_close()
    ).count(store=Materialized(name="c", retention=ms(600000))).to_stream().to("out")


@dsl
def count_left_join_table_group(b: StreamsBuilder) -> None:
    c = texts(b, "in").group_by_key().count()
    c.left_join(table(b, "table"), lambda x, t: "none" if t is None else word(t), result=str).group_by(
        lambda k, v: (v, v), value=str
    ).count().to_stream().to("out")


@dsl
def fk_on_aggregate(b: StreamsBuilder) -> None:
    a = texts(b, "in").group_by_key().reduce(lambda x, y: x if len(y) > 10 else y)
    a.join(table(b, "table"), joined, foreign_key=word).to_stream().to("out")


@dsl
def fk_left_filtered(b: StreamsBuilder) -> None:
    r = table(b, "right").filter(lambda k, v: not v.startswith("red"))
    table(b, "left").left_join(r, joined, foreign_key=word).filter(
        lambda k, v: not v.endswith("null") or k == "a"
    ).to_stream().to("out")


@dsl
def cogroup_hopping(b: StreamsBuilder) -> None:
    o = texts(b, "one").group_by_key()
    t = texts(b, "two").select_key(lambda k, v: k).group_by_key()
    o.cogroup(lambda k, v, a: a + "1").cogroup(t, lambda k, v, a: a + "2").windowed_by(
        TimeWindows.of_size(ms(6000), grace=ms(3000)).advance_by(ms(2000))
    ).aggregate(lambda: "", value=str).to_stream().to("out")


@dsl
def merge_repartition_reduce(b: StreamsBuilder) -> None:
    texts(b, "one").map_values(lambda v: "1" + v).merge(
        texts(b, "two").flat_map_values(lambda v: ["2" + v, "3" + v])
    ).select_key(lambda k, v: word(v)).repartition(name="r").filter(lambda k, v: "blue" not in v).group_by_key().reduce(
        lambda x, y: (x + y)[max(0, len(x) + len(y) - 12) :]
    ).to_stream().to("out")


@dsl
def suppress_then_join(b: StreamsBuilder) -> None:
    left = table(b, "left").suppress(Suppressed.until_time_limit(ms(4000), BufferConfig.unbounded()))
    left.outer_join(table(b, "right"), joined).to_stream().to("out")


@dsl
def to_table_filter_group_null(b: StreamsBuilder) -> None:
    texts(b, "in").to_table().filter_not(lambda k, v: v.startswith("teal")).group_by(
        lambda k, v: (None if v.startswith("red") else word(v), k)
    ).aggregate(
        lambda: "", lambda k, v, a: None if len(a) > 3 else a + v, lambda k, v, a: a.replace(v, "", 1), value=str
    ).to_stream().to("out")


@dsl
def session_close_filter(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(SessionWindows.of_inactivity_gap(ms(4000), grace=ms(1000))).emit_strategy(
        EmitStrategy.on_window_close()
    ).count(store=Materialized(name="s", retention=ms(600000))).filter(lambda k, v: v > 1).to_stream().to("out")


@dsl
def close_then_hopping(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(TimeWindows.of_size(ms(3000), grace=ms(1000))).emit_strategy(
        EmitStrategy.on_window_close()
    ).count(store=Materialized(name="c", retention=ms(600000))).to_stream(
        lambda k, v: k.key, key=str
    ).group_by_key().windowed_by(TimeWindows.of_size(ms(12000), grace=ms(20000)).advance_by(ms(5000))).reduce(
        lambda x, y: x + y
    ).to_stream().to("out")


@dsl
def outer_join_counts(b: StreamsBuilder) -> None:
    texts(b, "one").group_by_key().count().outer_join(
        texts(b, "two").group_by(lambda k, v: word(v)).count(), joined, store="j", result=str
    ).map_values(lambda v: v + "?").to_stream().to("out")


@dsl
def grace_rekeyed(b: StreamsBuilder) -> None:
    t = table(b, "table", store=Materialized(name="v", history_retention=ms(60000)))
    texts(b, "stream").select_key(lambda k, v: "a" if "red" in v else "b").join(t, joined, grace=ms(4000)).to("out")


@dsl
def hopping_filter_not(b: StreamsBuilder) -> None:
    texts(b, "in").group_by(lambda k, v: word(v)).windowed_by(
        TimeWindows.of_size(ms(9000), grace=ms(0)).advance_by(ms(3000))
    ).count(store="c").filter_not(lambda k, v: v % 2 == 0).to_stream().to("out")


@dsl
def group_null_join(b: StreamsBuilder) -> None:
    c = table(b, "in").group_by(lambda k, v: None if v.startswith("red") else (word(v), v)).count()
    texts(b, "table").select_key(lambda k, v: word(v)).left_join(c, joined, result=str).to("out")


@dsl
def self_left_join(b: StreamsBuilder) -> None:
    s = texts(b, "in")
    s.left_join(s, joined, JoinWindows.of_time_difference(ms(2000), grace=ms(3000)).before(ms(-500))).to("out")


@dsl
def two_joins_of_rekeyed(b: StreamsBuilder) -> None:
    left = texts(b, "left").select_key(lambda k, v: word(v))
    right = texts(b, "right")
    left.join(
        right.select_key(lambda k, v: word(v)), joined, JoinWindows.of_time_difference(ms(3000), grace=ms(3000))
    ).to("out")
    left.left_join(right, joined, JoinWindows.of_time_difference(ms(6000), grace=ms(0))).to("out2")


@dsl
def table_stream_table(b: StreamsBuilder) -> None:
    def with_key(key: str, value: Any) -> str:
        return key + str(value)

    again = table(b, "in").map_values(lambda v: None if is_red(None, v) else v).to_stream().to_table(store="again")
    again.map_values(with_key, with_key=True, store="m").to_stream().to("out")


@dsl
def sliding_suppress_count(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(
        SlidingWindows.of_time_difference(ms(3000), grace=ms(2000))
    ).count().suppress(Suppressed.until_window_closes(BufferConfig.unbounded())).to_stream(
        lambda k, v: k.key, key=str
    ).group_by_key().count().to_stream().to("out")


@dsl
def versioned_left_join(b: StreamsBuilder) -> None:
    t = table(b, "table", store=Materialized(name="v", history_retention=ms(20000)))
    texts(b, "stream").left_join(
        t.filter(lambda k, v: not v.startswith("red")).map_values(lambda v: v + "~"), joined
    ).to("out")


@dsl
def session_reduce_close_grace(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(SessionWindows.of_inactivity_gap(ms(2500), grace=ms(6000))).emit_strategy(
        EmitStrategy.on_window_close()
    ).reduce(lambda x, y: f"{x}/{shown(y)}", store=Materialized(name="s", retention=ms(600000))).to_stream().to("out")


@dsl
def table_join_three_group(b: StreamsBuilder) -> None:
    x, y, z = table(b, "a"), table(b, "b"), table(b, "c")
    x.left_join(y, lambda p, q: word(p) if q is None else word(q)).outer_join(
        z, lambda p, q: word(q) if p is None else p
    ).group_by(lambda k, v: (v, v)).count().to_stream().to("out")


@dsl
def left_join_asym_rekeyed(b: StreamsBuilder) -> None:
    def key(old: str, value: str) -> tuple[Any, str]:
        return (None if "teal" in value else old), value

    texts(b, "left").map(key).left_join(
        texts(b, "right"), joined, JoinWindows.of_time_difference(ms(1000), grace=ms(2500)).after(ms(7000))
    ).to("out")


@dsl
def suppress_bytes(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().count().suppress(
        Suppressed.until_time_limit(ms(60000), BufferConfig.max_records(3).emit_early_when_full())
    ).to_stream().to("out")


@dsl
def windowed_join_table(b: StreamsBuilder) -> None:
    s = texts(b, "in")
    tw = TimeWindows.of_size(ms(7000), grace=ms(7000))
    c = s.group_by_key().windowed_by(tw).count(store="c")
    r = s.filter(lambda k, v: "red" in v).group_by_key().windowed_by(tw).reduce(lambda x, y: y, store="r")
    c.left_join(r, joined, result=str).to_stream().to("out")


@dsl
def session_join_tables(b: StreamsBuilder) -> None:
    sw = SessionWindows.of_inactivity_gap(ms(4000), grace=ms(8000))
    x = texts(b, "in").group_by_key().windowed_by(sw).count(store="x")
    y = texts(b, "in2").group_by_key().windowed_by(sw).count(store="y")
    x.outer_join(y, joined, result=str).to_stream().to("out")


@dsl
def fk_group(b: StreamsBuilder) -> None:
    table(b, "left").join(table(b, "right"), joined, foreign_key=lambda v: word(v)[:1]).group_by(
        lambda k, v: ("B" if "+b" in v else "o", k)
    ).reduce(lambda x, y: x + y, lambda x, y: x.replace(y, "", 1)).to_stream().to("out")


@dsl
def fk_versioned(b: StreamsBuilder) -> None:
    table(b, "left", store=Materialized(name="v", history_retention=ms(30000))).left_join(
        table(b, "right"), joined, foreign_key=lambda v: word(v)[:1]
    ).to_stream().to("out")


@dsl
def cogroup_session_suppress(b: StreamsBuilder) -> None:
    o = texts(b, "one").group_by_key()
    t = texts(b, "two").group_by_key()
    o.cogroup(lambda k, v, a: a + "1").cogroup(t, lambda k, v, a: a + "2").windowed_by(
        SessionWindows.of_inactivity_gap(ms(3000), grace=ms(4000))
    ).aggregate(lambda: "", lambda k, x, y: x + "-" + y, value=str).suppress(
        Suppressed.until_window_closes(BufferConfig.unbounded())
    ).to_stream().to("out")


@dsl
def versioned_group_join(b: StreamsBuilder) -> None:
    v = table(b, "in", store=Materialized(name="v", history_retention=ms(15000)))
    c = v.group_by(lambda k, x: (word(x), x)).count()
    texts(b, "in2").select_key(lambda k, x: word(x)).left_join(c, joined, result=str).to("out")


@dsl
def outer_nulls(b: StreamsBuilder) -> None:
    texts(b, "left").outer_join(
        texts(b, "right"), joined, JoinWindows.of_time_difference(ms(1500), grace=ms(4000)).before(ms(3000))
    ).map_values(lambda v: v + ".").to("out")


@dsl
def table_map_join_self_filter(b: StreamsBuilder) -> None:
    t = table(b, "in")
    t.map_values(lambda v: v.upper()).left_join(t.filter(lambda k, v: v.startswith("blue")), joined).to_stream().to(
        "out"
    )


@dsl
def reduce_table_reduce(b: StreamsBuilder) -> None:
    texts(b, "in").group_by(lambda k, v: word(v)).reduce(lambda x, y: y).group_by(lambda k, v: (k[:1], v)).reduce(
        lambda x, y: x + "|" + y, lambda x, y: x.replace("|" + y, "").replace(y, "")
    ).to_stream().to("out")


@dsl
def left_join_left_join(b: StreamsBuilder) -> None:
    texts(b, "one").left_join(
        texts(b, "two"), joined, JoinWindows.of_time_difference(ms(2000), grace=ms(1000))
    ).outer_join(texts(b, "three"), joined, JoinWindows.of_time_difference(ms(4000), grace=ms(2000))).to("out")


@dsl
def session_merge_agg(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(SessionWindows.of_inactivity_gap(ms(2500), grace=ms(0))).aggregate(
        lambda: "",
        letters,
        lambda k, x, y: shown(x) + "." + shown(y),
        value=str,
    ).to_stream().to("out")


@dsl
def sliding_agg_null(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(SlidingWindows.of_time_difference(ms(4000), grace=ms(0))).aggregate(
        lambda: "", up_to_five_letters, value=str
    ).to_stream().to("out")


@dsl
def hopping_agg_suppress_close(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(
        TimeWindows.of_size(ms(6000), grace=ms(2000)).advance_by(ms(3000))
    ).aggregate(lambda: "", letters, value=str).suppress(
        Suppressed.until_window_closes(BufferConfig.unbounded())
    ).to_stream().to("out")


@dsl
def global_then_table(b: StreamsBuilder) -> None:
    g = b.global_table("g", key=str, value=str)
    texts(b, "in").left_join(g, joined, key_selector=lambda k, v: k).select_key(lambda k, v: k or "a").join(
        table(b, "t"), joined
    ).to("out")


@dsl
def split_merge_windows(b: StreamsBuilder) -> None:
    m = texts(b, "in").split(name="s-").branch(is_red, name="r").default_branch(name="o")
    m["s-r"].select_key(lambda k, v: "red").merge(m["s-o"]).group_by_key().windowed_by(
        TimeWindows.of_size(ms(5000), grace=ms(1000))
    ).count(store="c").to_stream().to("out")


@dsl
def table_outer_left_fk(b: StreamsBuilder) -> None:
    x, y, z = table(b, "a"), table(b, "b"), table(b, "c")
    x.outer_join(y, lambda p, q: q if p is None else p if q is None else word(p) + ":" + q).left_join(
        z, joined, foreign_key=lambda v: word(v)[:1]
    ).to_stream().to("out")


@dsl
def repartition_join_table(b: StreamsBuilder) -> None:
    s = texts(b, "in").select_key(lambda k, v: word(v)[:1])
    t = table(b, "t")
    s.join(t, joined).merge(s.left_join(t, lambda x, y: joined(x, y) + "l")).to("out")


@dsl
def suppress_windowed_group(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(TimeWindows.of_size(ms(4000), grace=ms(4000))).count(store="c").suppress(
        Suppressed.until_time_limit(ms(2000), BufferConfig.unbounded())
    ).group_by(lambda k, v: (k.key, v), key=str, value=int).reduce(
        lambda x, y: x + y, lambda x, y: x - y
    ).to_stream().to("out")


@dsl
def time_limit_join_fk(b: StreamsBuilder) -> None:
    table(b, "left").suppress(
        Suppressed.until_time_limit(ms(2500), BufferConfig.max_records(2).emit_early_when_full())
    ).join(table(b, "right"), joined, foreign_key=lambda v: word(v)[:1]).to_stream().to("out")


@dsl
def emit_close_sliding_map(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(
        SlidingWindows.of_time_difference(ms(3000), grace=ms(1000))
    ).emit_strategy(EmitStrategy.on_window_close()).reduce(
        lambda x, y: f"{x}/{shown(y)}", store=Materialized(name="s", retention=ms(600000))
    ).map_values(lambda v: str(len(v))).to_stream().to("out")


@dsl
def count_to_stream_join_back(b: StreamsBuilder) -> None:
    s = texts(b, "in")
    c = s.group_by_key().count()
    c.to_stream().map_values(lambda v: f"n{v}", value=str).join(
        s, joined, JoinWindows.of_time_difference(ms(3000), grace=ms(3000))
    ).left_join(c, joined, result=str).to("out")


@dsl
def versioned_join_versioned(b: StreamsBuilder) -> None:
    x = table(b, "a", store=Materialized(name="v", history_retention=ms(30000)))
    y = table(b, "b", store=Materialized(name="u", history_retention=ms(3000)))
    x.outer_join(y.map_values(lambda v: v + "~"), joined).filter(lambda k, v: "teal" not in v).to_stream().to("out")
