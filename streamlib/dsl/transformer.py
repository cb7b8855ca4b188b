"""Transformers of a table's values: what a user's one looks like."""

from __future__ import annotations

from typing import Protocol, TypeVar

from streamlib.dsl.processor import ProcessorContext

KIn = TypeVar("KIn", contravariant=True)
VIn = TypeVar("VIn", contravariant=True)
VOut = TypeVar("VOut", covariant=True)


class ValueTransformer(Protocol[KIn, VIn, VOut]):
    """Made by the supplier that `KTable.transform_values` was given: one per task. `close` may be left out.

    Where rows are looked up that are not stored, another one works them out from the rows of the table above.

    >>> from streamlib.testing import run_stream
    >>> class Doubled:
    ...     def init(self, context):
    ...         pass
    ...     def transform(self, key, value):
    ...         return None if value is None else value * 2
    >>> run_stream(lambda s: s.to_table().transform_values(Doubled).to_stream(), [("a", 1), ("a", None)])
    [('a', 2), ('a', None)]
    """

    def init(self, context: ProcessorContext) -> None:
        """Called once before the first row. The context gives stores; it cannot forward."""
        ...

    def transform(self, key: KIn, value: VIn | None) -> VOut:
        """The new value of a row. Called with None for deletes, and gives None for one."""
        ...
