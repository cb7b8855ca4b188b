"""Bytes of records as text."""

from __future__ import annotations

from typing import Any, TypeAlias

from streamlib.engine.plan import Plan
from streamlib.serdes import Serde
from streamlib.topology.nodes import SinkNode
from streamlib.verify.shapes import changelogs

_LONGEST = 100

_Serdes: TypeAlias = tuple[Serde[Any], Serde[Any]]


class Wording:
    """Reads keys and values as the topology writes them; what cannot be read so is shown as bytes."""

    def __init__(self, plan: Plan) -> None:
        self._serdes: dict[str, _Serdes] = {}
        for topic, spec in changelogs(plan).items():
            if spec.kind in ("key_value", "timestamped_key_value"):
                self._serdes[topic] = spec.key, spec.value
        for node in plan.topology.nodes.values():
            if isinstance(node, SinkNode) and isinstance(node.topic, str):
                self._serdes.setdefault(plan.full_name(node.topic), (node.key, node.value))

    def key(self, topic: str, raw: bytes | None) -> str:
        """A key of a topic."""
        serdes = self._serdes.get(topic)
        return _text(None if serdes is None else serdes[0], raw)

    def value(self, topic: str, raw: bytes | None) -> str:
        """A value of a topic."""
        serdes = self._serdes.get(topic)
        return _text(None if serdes is None else serdes[1], raw)


def _text(serde: Serde[Any] | None, raw: bytes | None) -> str:
    if raw is None:
        return "null"
    try:
        text = repr(raw if serde is None else serde.decode(raw))
    except Exception:
        text = repr(raw)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
