"""Where the nodes of a topology are drawn: in layers from top to bottom, subtopology by subtopology.

    topics     read by the first subtopologies
    boxes      of these, side by side
    topics     between them and those that come after
    ...

Each subtopology is laid out by itself: a node's layer is the longest way to it, and within a layer nodes are where
those above them are (barycentres). What goes round in a circle, as a retry topic does, is drawn upwards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from streamlib.topology.drawing import Drawing, Group, Shape

NODE_WIDTH, NODE_HEIGHT = 188, 46
STORE_HEIGHT = 18
TOPIC_WIDTH, TOPIC_HEIGHT = 228, 34
GAP_X, GAP_Y = 20, 30
PADDING, TITLE = 16, 26
GROUP_LINE = 190  # beside the title: what is known of its tasks
WIDEST = 1_150
SWEEPS = 4

N = TypeVar("N", bound=Hashable)


class Box(msgspec.Struct, frozen=True):
    """A rectangle; `id` as in the drawing."""

    id: str
    kind: str
    text: str
    x: float
    y: float
    width: float
    height: float
    stores: tuple[str, ...] = ()


class Layout(msgspec.Struct, frozen=True):
    """Boxes around subtopologies, what is in them and between them, and which leads to which."""

    width: float
    height: float
    groups: tuple[Box, ...]
    boxes: tuple[Box, ...]
    arrows: tuple[tuple[str, str], ...]


def lay_out(drawing: Drawing) -> Layout:
    """The places of everything, in pixels."""
    stores = _stores(drawing)
    arrows = tuple((arrow.tail, arrow.head) for arrow in drawing.arrows if not arrow.is_store)
    group_of = {shape.id: group.id for group in drawing.groups for shape in group.shapes}
    inner = {group.id: _inside(group, arrows, stores) for group in drawing.groups}
    ends = [(group_of.get(tail, tail), group_of.get(head, head)) for tail, head in arrows]
    ranks = layers_of([*(topic.id for topic in drawing.topics), *inner], [(t, h) for t, h in ends if t != h])
    rows: dict[int, list[tuple[Box, Sequence[Box]]]] = defaultdict(list)
    for topic in drawing.topics:
        width = max(TOPIC_WIDTH, 8.0 * len(topic.text) + 32)
        rows[ranks[topic.id]].append((Box(topic.id, "topic", topic.text, 0, 0, width, TOPIC_HEIGHT), ()))
    for group in drawing.groups:
        rows[ranks[group.id]].append(inner[group.id])
    placed = _in_rows([rows[rank] for rank in sorted(rows)])
    boxes = [box for box, _ in placed]
    return Layout(
        max((box.x + box.width for box in boxes), default=0),
        max((box.y + box.height for box in boxes), default=0),
        tuple(box for box in boxes if box.kind == "group"),
        (*(box for box in boxes if box.kind == "topic"), *(each for _, within in placed for each in within)),
        arrows,
    )


def layers_of(nodes: Iterable[N], arrows: Iterable[tuple[N, N]]) -> dict[N, int]:
    """How many arrows the longest way to each has; those that close a circle are left out.

    >>> layers_of("abc", [("a", "b"), ("b", "c"), ("a", "c"), ("c", "a")])
    {'a': 0, 'b': 1, 'c': 2}
    """
    nodes = list(nodes)
    after: dict[N, list[N]] = defaultdict(list)
    for tail, head in arrows:
        after[tail].append(head)
    order: list[N] = []
    state: dict[N, int] = {}  # 1: being visited, 2: done
    heads = {head for heads in after.values() for head in heads}
    forward: dict[N, list[N]] = defaultdict(list)
    for start in (*(node for node in nodes if node not in heads), *nodes):
        if state.get(start):
            continue
        state[start] = 1
        way = [(start, iter(after[start]))]
        while way:
            node, left = way[-1]
            following = next(left, None)
            if following is None:
                way.pop()
                state[node] = 2
                order.append(node)
            elif state.get(following) != 1:
                forward[node].append(following)
                if following not in state:
                    state[following] = 1
                    way.append((following, iter(after[following])))
    layers = dict.fromkeys(nodes, 0)
    for node in reversed(order):
        for following in forward[node]:
            layers[following] = max(layers[following], layers[node] + 1)
    return layers


def _stores(drawing: Drawing) -> Mapping[str, tuple[str, ...]]:
    """The stores of each node, by name: they are shown in it."""
    names = {shape.id: shape.text for group in drawing.groups for shape in group.shapes if shape.kind == "store"}
    found: dict[str, list[str]] = defaultdict(list)
    for arrow in drawing.arrows:
        if arrow.is_store:
            found[arrow.tail].append(names[arrow.head])
    return {node: tuple(stores) for node, stores in found.items()}


def _inside(
    group: Group, arrows: Sequence[tuple[str, str]], stores: Mapping[str, tuple[str, ...]]
) -> tuple[Box, list[Box]]:
    """A subtopology at (0, 0), and what is in it."""
    shapes = {shape.id: shape for shape in group.shapes if shape.kind != "store"}
    own = [(tail, head) for tail, head in arrows if tail in shapes and head in shapes]
    layers = layers_of(shapes, own)
    rows: dict[int, list[str]] = defaultdict(list)
    for shape, layer in layers.items():
        rows[layer].append(shape)
    order = _ordered([rows[layer] for layer in sorted(rows)], own)
    widest = max((len(row) for row in order), default=1)
    inner_width = max(widest * (NODE_WIDTH + GAP_X) - GAP_X, 8.0 * len(group.text) + GROUP_LINE)
    boxes, y = [], float(TITLE + PADDING)
    for row in order:
        x = PADDING + (inner_width - (len(row) * (NODE_WIDTH + GAP_X) - GAP_X)) / 2
        for id_ in row:
            boxes.append(_box(shapes[id_], x, y, stores.get(id_, ())))
            x += NODE_WIDTH + GAP_X
        y += max(box.height for box in boxes[-len(row) :]) + GAP_Y
    height = y - GAP_Y + PADDING if boxes else TITLE + PADDING
    return Box(group.id, "group", group.text, 0, 0, inner_width + 2 * PADDING, height), boxes


def _box(shape: Shape, x: float, y: float, stores: tuple[str, ...]) -> Box:
    return Box(shape.id, shape.kind, shape.text, x, y, NODE_WIDTH, NODE_HEIGHT + STORE_HEIGHT * len(stores), stores)


def _ordered(rows: list[list[str]], arrows: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Each node where its neighbours are, down and up by turns."""
    above: dict[str, list[str]] = defaultdict(list)
    below: dict[str, list[str]] = defaultdict(list)
    for tail, head in arrows:
        above[head].append(tail)
        below[tail].append(head)
    for sweep in range(SWEEPS):
        neighbours = below if sweep % 2 else above
        place = {node: number - (len(row) - 1) / 2 for row in rows for number, node in enumerate(row)}
        for row in reversed(rows) if sweep % 2 else rows:
            row.sort(key=lambda node: _mean([place[each] for each in neighbours[node]], place[node]))
            place.update((node, number - (len(row) - 1) / 2) for number, node in enumerate(row))
    return rows


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _in_rows(rows: Sequence[Sequence[tuple[Box, Sequence[Box]]]]) -> list[tuple[Box, list[Box]]]:
    """One row below the other, each in the middle; what is too wide for one takes several."""
    lines: list[list[tuple[Box, Sequence[Box]]]] = []
    for row in rows:
        line: list[tuple[Box, Sequence[Box]]] = []
        for each in row:
            if line and _width([*line, each]) > WIDEST:
                lines.append(line)
                line = []
            line.append(each)
        lines.append(line)
    whole = max((_width(line) for line in lines), default=0)
    placed, y = [], 0.0
    for line in lines:
        x = (whole - _width(line)) / 2
        for box, within in line:
            placed.append((_moved(box, x, y), [_moved(each, x, y) for each in within]))
            x += box.width + GAP_X
        y += max(box.height for box, _ in line) + GAP_Y + 8
    return placed


def _width(line: Sequence[tuple[Box, Sequence[Box]]]) -> float:
    return sum(box.width + GAP_X for box, _ in line) - GAP_X


def _moved(box: Box, x: float, y: float) -> Box:
    return msgspec.structs.replace(box, x=box.x + x, y=box.y + y)
