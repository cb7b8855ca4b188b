"""Rows of a store that an earlier version of the program has written: how they become what its type is now.

Each class knows the one before it, so a row of any version is upgraded step by step. A row carries its version in one
byte; rows without one are of version 1, as all were before anything was declared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_origin

import msgspec
from msgspec import inspect

from streamlib.errors import TopologyError

T = TypeVar("T")
Old = TypeVar("Old")

FIRST_VERSION = 1
LAST_VERSION = 127

_DECLARED = "__streamlib_upgrade__"
_TOLD_APART = (
    inspect.StructType,
    inspect.DataclassType,
    inspect.TypedDictType,
    inspect.NamedTupleType,
    inspect.DictType,
    inspect.ListType,
    inspect.TupleType,
    inspect.VarTupleType,
    inspect.SetType,
    inspect.FrozenSetType,
)
"""Types whose rows begin with a byte that no version is written as, in JSON and in MessagePack."""


class Upgrade(msgspec.Struct, frozen=True):
    """One step: `by(value of old)` is a value of `version`."""

    version: int
    old: Any
    by: Callable[[Any], Any]


def upgrades(old: type[Old], by: Callable[[Old], Any], *, version: int | None = None) -> Callable[[type[T]], type[T]]:
    """Declare how rows of a store are upgraded that were written when its values were of another type.

    The old class stays in the program, under another name; its name is not in the rows. A store reads rows of all
    versions and writes those of the newest, in JSON or MessagePack as before. Topics that others read have no versions
    in them.

    Args:
        old: what values were, one version before: a class like this one, or a dict or list.
        by: makes a value of the new class from an old one. It has to give the same each time.
        version: of the new class, from 2 to 127. One more than that of the old class if not given; to be said once the
            first versions are not declared any more.

    Raises:
        TopologyError: there cannot be such a version, or rows of the old type could not be told apart.

    >>> class TotalV1(msgspec.Struct):
    ...     amount: float
    >>> @upgrades(TotalV1, lambda old: Total(cents=round(old.amount * 100)))
    ... class Total(msgspec.Struct):
    ...     cents: int
    >>> from streamlib.serdes import Place, Serdes
    >>> rows = Serdes.json(Total).at(Place(topic="totals-changelog", is_internal=True))
    >>> rows.decode(b'{"amount":1.5}'), rows.encode(Total(150))
    (Total(cents=150), b'\\x82{"cents":150}')
    """
    if not callable(by):
        raise TopologyError(f"@upgrades needs a function that makes new values from old ones, not {by!r}")
    before = _declared(old)
    least = FIRST_VERSION + 1 if before is None else before.version + 1
    number = least if version is None else version
    if type(number) is not int or not FIRST_VERSION < number <= LAST_VERSION or (before and number != least):
        allowed = f"{least}" if before else f"from {FIRST_VERSION + 1} to {LAST_VERSION}"
        raise TopologyError(f"@upgrades({_name(old)}): the version is {allowed}, not {number!r}")
    _check_old(old)

    def declare(cls: type[T]) -> type[T]:
        if not isinstance(cls, type):
            raise TopologyError(f"@upgrades is for classes, not {cls!r}")
        setattr(cls, _DECLARED, Upgrade(number, old, by))
        return cls

    return declare


def upgrades_of(type_: Any) -> tuple[Upgrade, ...]:
    """The steps that lead to a type, the first one first; none if nothing was declared.

    >>> upgrades_of(int)
    ()
    """
    declared = _declared(type_)
    return () if declared is None else (*upgrades_of(declared.old), declared)


def _declared(type_: Any) -> Upgrade | None:
    """What was declared for the class itself: one that is derived from it is another type."""
    found = vars(type_).get(_DECLARED) if isinstance(type_, type) else None
    return found if isinstance(found, Upgrade) else None


def _check_old(old: Any) -> None:
    try:
        told_apart = isinstance(inspect.type_info(old), _TOLD_APART)
    except TypeError as error:
        raise TopologyError(f"@upgrades({_name(old)}): msgspec cannot read it: {error}") from error
    if not told_apart:
        raise TopologyError(
            f"@upgrades({_name(old)}): rows of this type cannot be told from versions; keep the new values in a store "
            "of another name, and fill it from the input"
        )


def _name(type_: Any) -> str:
    return type_.__name__ if isinstance(type_, type) and get_origin(type_) is None else repr(type_)
