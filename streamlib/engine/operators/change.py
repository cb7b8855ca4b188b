"""Changes of tables: tuples `(new value, old value)`; None is no row."""

from __future__ import annotations

from typing import Any


class OutOfOrder(tuple[Any, Any]):
    """A change of a versioned table that its newest row came after; the old value is that of the newest row.

    Only what makes changes for the nodes below a versioned table, or works on them, has to tell it from others.
    """

    __slots__ = ()
