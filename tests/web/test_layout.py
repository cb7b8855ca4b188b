"""Where nodes are drawn: nothing overlaps, and what comes later is further down."""

from __future__ import annotations

from datetime import timedelta
from itertools import combinations

import pytest

from streamlib import RetryTopics, StreamsBuilder, TimeWindows, Topology
from streamlib.topology.drawing import draw
from streamlib.web.layout import WIDEST, Box, Layout, lay_out
from tests.web.shop import topology as shop


def retrying() -> Topology:
    """A retry topic leads back to where it came from."""
    builder = StreamsBuilder()
    policy = RetryTopics(delays=(timedelta(seconds=1),))
    builder.stream("in", key=str, value=str).map_values(str.upper, value=str, on_error=policy).to("out")
    return builder.build()


def wide() -> Topology:
    builder = StreamsBuilder()
    stream = builder.stream("in", key=str, value=str)
    for number in range(9):
        stream.filter(lambda _, value: bool(value)).group_by(lambda _, value: value, key=str).windowed_by(
            TimeWindows.of_size(timedelta(minutes=1), grace=timedelta(0))
        ).count(store=f"counts-{number}").to_stream().to(f"out-{number}")
    return builder.build()


def overlap(one: Box, other: Box) -> bool:
    apart = one.x + one.width <= other.x or other.x + other.width <= one.x
    return not (apart or one.y + one.height <= other.y or other.y + other.height <= one.y)


def of(layout: Layout) -> dict[str, Box]:
    return {box.id: box for box in layout.boxes}


@pytest.mark.parametrize("topology", [shop(), retrying(), wide()], ids=["shop", "retrying", "wide"])
def test_everything_has_a_place_of_its_own(topology: Topology) -> None:
    drawing = draw(topology)
    layout = lay_out(drawing)
    shapes = {shape.id for group in drawing.groups for shape in group.shapes if shape.kind != "store"}
    assert of(layout).keys() == shapes | {topic.id for topic in drawing.topics}
    for one, other in combinations(layout.boxes, 2):
        assert not overlap(one, other), (one, other)
    for box in (*layout.boxes, *layout.groups):
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= layout.width
        assert box.y + box.height <= layout.height
    for group in layout.groups:
        inside = {shape.id for each in drawing.groups if each.id == group.id for shape in each.shapes}
        for box in layout.boxes:
            assert overlap(box, group) == (box.id in inside)


def test_records_go_down() -> None:
    layout = lay_out(draw(shop()))
    for tail, head in layout.arrows:
        assert of(layout)[tail].y < of(layout)[head].y


def test_what_goes_round_goes_up_once() -> None:
    layout = lay_out(draw(retrying()))
    up = [(tail, head) for tail, head in layout.arrows if of(layout)[tail].y >= of(layout)[head].y]
    assert len(up) == 1


def test_many_subtopologies_take_several_rows() -> None:
    layout = lay_out(draw(wide()))
    widest = max(group.width for group in layout.groups)
    assert layout.width <= max(WIDEST, widest)
    assert len({group.y for group in layout.groups}) > 2


def test_stores_are_shown_in_their_nodes() -> None:
    layout = lay_out(draw(shop()))
    assert {store for box in layout.boxes for store in box.stores} == {"customers", "revenue-per-minute"}
