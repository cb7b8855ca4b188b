"""Asks one broker of the model, with requests and answers as they would be on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamlib.kafka.protocol.codec import Part, decode_whole, encode
from streamlib.kafka.protocol.messages import APIS
from streamlib.simulation.cluster.basics import Body, Handler


class Asked:
    """A request that was made, and its answer if there is one."""

    def __init__(self) -> None:
        self._answers: list[Any] = []

    def answered(self, answer: Any) -> None:
        assert self.waits, "a request is answered once"
        self._answers.append(answer)

    @property
    def waits(self) -> bool:
        return not self._answers

    @property
    def answer(self) -> Any:
        assert self._answers, "there is no answer yet"
        return self._answers[0]

    @property
    def code(self) -> int:
        code: int = self.answer.error_code
        return code


def ask(handlers: Mapping[str, Handler], api: str, body: Body, *, version: int | None = None, broker: int = 0) -> Asked:
    """Make a request, of the newest version if none is given."""
    used = APIS[api].versions[1] if version is None else version
    asked = Asked()
    request = _through_the_wire(api, "request", used, body)
    handlers[api](broker, request, used, lambda reply: asked.answered(_through_the_wire(api, "response", used, reply)))
    return asked


def _through_the_wire(api: str, part: Part, version: int, body: Body) -> Any:
    return decode_whole(APIS[api], part, version, b"".join(encode(APIS[api], part, version, body)))
