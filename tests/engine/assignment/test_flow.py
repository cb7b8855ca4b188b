"""The cheapest flow, against all there are."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from streamlib.engine.assignment.flow import Flow

prices = st.integers(1, 4).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(0, 9) | st.none(), min_size=size, max_size=size), min_size=size, max_size=size
    )
)


@given(prices)
@settings(deadline=None)
def test_one_to_one_matches_are_as_many_and_as_cheap_as_possible(table: list[list[int | None]]) -> None:
    """None is no edge. Each row goes to one column at most."""
    network = Flow()
    source, sink = network.node(), network.node()
    rows = [network.node() for _ in table]
    columns = [network.node() for _ in table]
    for row, column in zip(rows, columns, strict=True):
        network.edge(source, row, 1, 0)
        network.edge(column, sink, 1, 0)
    edges = [
        (network.edge(rows[row], columns[column], 1, price), price)
        for row, line in enumerate(table)
        for column, price in enumerate(line)
        if price is not None
    ]
    network.fill(source, sink)
    sent = [price for edge, price in edges if network.sent(edge)]
    assert (-len(sent), sum(sent)) == min(worth(table, order) for order in permutations(range(len(table))))


def worth(table: list[list[int | None]], order: tuple[int, ...]) -> tuple[int, int]:
    """Any matching is part of one that gives each row a column; the more, then the cheaper, the better."""
    chosen = [price for line, column in zip(table, order, strict=True) if (price := line[column]) is not None]
    return -len(chosen), sum(chosen)


def test_a_dear_path_is_taken_when_the_cheap_one_is_full() -> None:
    network = Flow()
    source, sink = network.node(), network.node()
    cheap, dear = network.edge(source, sink, 2, 1), network.edge(source, sink, 5, 7)
    network.fill(source, sink)
    assert (network.sent(cheap), network.sent(dear)) == (2, 5)


def test_nothing_is_sent_where_there_is_no_way() -> None:
    network = Flow()
    source, between, sink = network.node(), network.node(), network.node()
    edge = network.edge(source, between, 3, 0)
    network.fill(source, sink)
    assert network.sent(edge) == 0
