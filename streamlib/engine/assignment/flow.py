"""The cheapest way to send as much as possible through a network.

Primal-dual method: measure the cheapest paths with node potentials, which keep costs from becoming negative (Edmonds
and Karp, 1972), fill all paths of that price at once (Dinic, 1970), measure again. Fast where paths have few different
prices, which is the case here. The same network, built in the same order, always gives the same answer.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

_FAR = 1 << 62


class Flow:
    """A network of numbered nodes and edges with room and a price for each unit sent. No price is negative.

    >>> network = Flow()
    >>> source, cheap, dear, sink = (network.node() for _ in range(4))
    >>> edges = [network.edge(source, cheap, 2, 1), network.edge(source, dear, 2, 5)]
    >>> edges += [network.edge(cheap, sink, 1, 0), network.edge(dear, sink, 2, 0)]
    >>> network.fill(source, sink)
    >>> [network.sent(edge) for edge in edges]
    [1, 2, 1, 2]
    """

    def __init__(self) -> None:
        # Edge e and its way back, e ^ 1, lie side by side; what was sent through e is the room of e ^ 1.
        self._edges: list[list[int]] = []
        self._to: list[int] = []
        self._room: list[int] = []
        self._price: list[int] = []
        self._potential: list[int] = []

    def node(self) -> int:
        """A new node."""
        self._edges.append([])
        self._potential.append(0)
        return len(self._edges) - 1

    def edge(self, start: int, end: int, room: int, price: int) -> int:
        """A new edge."""
        number = len(self._to)
        self._to += (end, start)
        self._room += (room, 0)
        self._price += (price, -price)
        self._edges[start].append(number)
        self._edges[end].append(number + 1)
        return number

    def sent(self, edge: int) -> int:
        """How much goes through it."""
        return self._room[edge ^ 1]

    def fill(self, source: int, sink: int) -> None:
        """Send as much as there is room for, at the lowest price in total."""
        while self._measure(source, sink):
            while levels := self._levels(source, sink):
                self._fill_paths(source, sink, levels)

    def _measure(self, source: int, sink: int) -> bool:
        """Dijkstra. Afterwards edges on a cheapest path cost nothing, all others nothing or more."""
        to, room, price, potential = self._to, self._room, self._price, self._potential
        distances = [_FAR] * len(self._edges)
        distances[source] = 0
        heap = [(0, source)]
        while heap:
            distance, node = heappop(heap)
            if distance > distances[node] or distance >= distances[sink]:
                continue
            from_here = distance + potential[node]
            for edge in self._edges[node]:
                if room[edge]:
                    end = to[edge]
                    there = from_here + price[edge] - potential[end]
                    if there < distances[end]:
                        distances[end] = there
                        heappush(heap, (there, end))
        reached = distances[sink]
        if reached == _FAR:
            return False
        self._potential = [p + min(d, reached) for p, d in zip(potential, distances, strict=True)]
        return True

    def _levels(self, source: int, sink: int) -> list[int]:
        """How many free edges each node is from the source; nothing if the sink cannot be reached for free."""
        levels = [-1] * len(self._edges)
        levels[source] = 0
        waiting = deque([source])
        while waiting and levels[sink] < 0:
            node = waiting.popleft()
            for edge in self._edges[node]:
                end = self._to[edge]
                if levels[end] < 0 and self._is_free(node, edge):
                    levels[end] = levels[node] + 1
                    waiting.append(end)
        return levels if levels[sink] >= 0 else []

    def _is_free(self, node: int, edge: int) -> bool:
        return self._room[edge] > 0 and self._price[edge] + self._potential[node] - self._potential[self._to[edge]] == 0

    def _fill_paths(self, source: int, sink: int, levels: list[int]) -> None:
        """Fill shortest free paths until there are none."""
        tried = [0] * len(self._edges)
        path: list[int] = []
        node = source
        while True:
            if node == sink:
                self._send(path)
                path, node = [], source
                continue
            edges = self._edges[node]
            while tried[node] < len(edges):
                edge = edges[tried[node]]
                if levels[self._to[edge]] == levels[node] + 1 and self._is_free(node, edge):
                    break
                tried[node] += 1
            else:
                if not path:
                    return
                levels[node] = -1
                node = self._to[path.pop() ^ 1]
                continue
            path.append(edge)
            node = self._to[edge]

    def _send(self, path: list[int]) -> None:
        amount = min(self._room[edge] for edge in path)
        for edge in path:
            self._room[edge] -= amount
            self._room[edge ^ 1] += amount
