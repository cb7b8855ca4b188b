"""Names of nodes, stores and topics: counted up as Kafka Streams does, or given.

A generated name holds a number that counts through all steps, so it changes with the topology before it; what is kept
under it in Kafka is then lost. Strict naming refuses such names where anything is kept.
"""

from __future__ import annotations

from collections.abc import Mapping

from streamlib.errors import TopologyError

STORE_ARGUMENTS: Mapping[str, str] = {
    "COGROUPKSTREAM-AGGREGATE": "aggregate(store=...)",
    "KSTREAM-AGGREGATE": "count(store=...) or aggregate(store=...)",
    "KSTREAM-DEDUPLICATE": "deduplicate(store=...)",
    "KSTREAM-JOIN": "join(store=...)",
    "KSTREAM-LEFTJOIN": "left_join(name=...)",
    "KSTREAM-OUTER": "left_join(store=...) or outer_join(store=...)",
    "KSTREAM-REDUCE": "reduce(store=...)",
    "KSTREAM-TOTABLE": "to_table(store=...)",
    "KTABLE-AGGREGATE": "count(store=...), reduce(store=...) or aggregate(store=...)",
    "KTABLE-FK-JOIN": "join(name=..., store=...)",
    "KTABLE-SUPPRESS": "suppress(name=...)",
}
"""By the beginning of a generated name, the argument that gives the store another; else it is a table's `store=`."""


class Names:
    """Generates names, and knows which ones it has. `strict`: they are refused where something is kept."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._count = 0
        self._generated: list[str] = []

    def draw(self, prefix: str) -> str:
        """The next name."""
        name = f"{prefix}{self.skip():010d}"
        self._generated.append(name)
        return name

    def skip(self) -> int:
        """Use a number up, as a step does that is given a name."""
        number, self._count = self._count, self._count + 1
        return number

    def check_store(self, name: str) -> None:
        """A store may be called so.

        Raises:
            TopologyError: not under strict naming.
        """
        if self._refuses(name):
            argument = next((given for start, given in STORE_ARGUMENTS.items() if name.startswith(start)), None)
            self._refuse("a store and its changelog", name, argument or "table(store=...)")

    def check_repartition_topic(self, name: str) -> None:
        """A repartition topic may be called so.

        Raises:
            TopologyError: not under strict naming.
        """
        if self._refuses(name):
            step = "repartition(name=...)" if name.startswith("KSTREAM-REPARTITION") else None
            self._refuse(
                "a repartition topic", name, step or "group_by(name=...), join(name=...) or to_table(name=...)"
            )

    def _refuses(self, name: str) -> bool:
        """Stores and topics may be called after a generated name, with something behind it."""
        return self._strict and any(name.startswith(generated) for generated in self._generated)

    def _refuse(self, what: str, name: str, argument: str) -> None:
        raise TopologyError(
            f"{what} would be called {name}, a name that changes with the steps before it, which strict_naming "
            f"refuses: give it one by {argument}"
        )
