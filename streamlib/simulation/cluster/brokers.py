"""The brokers: which there are, and which are up."""

from __future__ import annotations

from streamlib.simulation.cluster.basics import Body

HOST = "broker.simulated"
FIRST_PORT = 9092


class Brokers:
    """Brokers are numbered from 0."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._down: set[int] = set()

    @property
    def up(self) -> list[int]:
        """Those that answer."""
        return [number for number in range(self.count) if number not in self._down]

    def is_up(self, number: int) -> bool:
        return number not in self._down

    def first_up(self, home: int) -> int | None:
        """The broker `home` (any number), or if it is down the next one that is up."""
        for step in range(self.count):
            number = (home + step) % self.count
            if number not in self._down:
                return number
        return None

    def stop(self, number: int) -> None:
        self._down.add(number)

    def start(self, number: int) -> None:
        self._down.discard(number)

    def entry(self, number: int) -> Body:
        """A broker, as metadata has it."""
        return {"node_id": number, "host": HOST, "port": FIRST_PORT + number}
