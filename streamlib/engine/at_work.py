"""What a thread that has not come back is busy with: which record, at which node, in which function.

Nothing is noted for this while records are processed. It is read off the thread's frames when somebody asks, and any
thread may ask: the interpreter's lock makes that safe, and at worst the thread has just moved on.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from types import FrameType
from typing import Any

import msgspec

from streamlib.engine.calls import Call
from streamlib.engine.operators.site import short
from streamlib.engine.task import Task
from streamlib.records import TopicPartition

_ENGINE = "streamlib.engine."
# What node functions have their node's name in: those that a user function's error gets it from.
_NAMED_BY = (
    ("name",),
    ("self", "name"),
    ("self", "_site", "name"),
    ("self", "_node"),
    ("node", "name"),
    ("self", "line", "name"),
)
_NAMED_BY_SOURCES = (("source", "node"), ("self", "_source", "node"))


class AtWork(msgspec.Struct, frozen=True):
    """What is known of it; what is not is empty.

    Args:
        partition: where the record in process came from; None in a punctuator, or if it is no record that takes long.
        offset: of the record; -1 without one.
        key: the record's key as the node sees it, for people.
        node: the node whose function is being called.
        function: that function, with the file and line it is at.
    """

    partition: TopicPartition | None = None
    offset: int = -1
    key: str = ""
    node: str = ""
    function: str = ""

    def __str__(self) -> str:
        record = "" if self.partition is None else f"{self.partition.at(self.offset)} (key {self.key})"
        where = ", ".join(
            text for text in (self.node and f"node {self.node}", self.function and f"function {self.function}") if text
        )
        return " at ".join(text for text in (record, where) if text) or "something other than a record"


def at_work(frame: FrameType | None, nodes: Container[str]) -> AtWork:
    """What the thread with this innermost frame is busy with; `nodes` are the names of the topology's nodes.

    >>> str(at_work(None, ()))
    'something other than a record'
    """
    node, key, function = _called(frame, nodes) or ("", "", _place(frame))
    owner = next((owner for each in _outwards(frame) if isinstance(owner := _self(each), Task | Call)), None)
    record = None if owner is None else owner.record_in_process
    if record is None:
        return AtWork(node=node, function=function)
    partition, offset, raw_key = record
    return AtWork(partition, offset, key or short(raw_key), node, function)


def _called(frame: FrameType | None, nodes: Container[str]) -> tuple[str, str, str] | None:
    """The innermost node that is in the middle of a call, its key, and the function it has called."""
    inner: FrameType | None = None
    for each in _outwards(frame):
        if each.f_globals.get("__name__", "").startswith(_ENGINE):
            seen = each.f_locals
            for path in (*_NAMED_BY, *_NAMED_BY_SOURCES):
                name = _follow(seen, path)
                if isinstance(name, str) and name in nodes:
                    return name, _key(seen), _place(inner)
        inner = each
    return None


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _self(frame: FrameType) -> object:
    modules = (Task.__module__, Call.__module__)
    return frame.f_locals.get("self") if frame.f_globals.get("__name__") in modules else None


def _follow(seen: dict[str, Any], path: tuple[str, ...]) -> object:
    first, *rest = path
    found = seen.get(first)
    for name in rest:
        found = getattr(found, name, None)
    return found


def _key(seen: dict[str, Any]) -> str:
    """A user's class may have a `repr` that fails."""
    if "key" not in seen:
        return ""
    try:
        return short(seen["key"])
    except Exception:
        return ""


def _place(frame: FrameType | None) -> str:
    """A function written in C has no frame."""
    if frame is None:
        return ""
    return f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}, line {frame.f_lineno})"
