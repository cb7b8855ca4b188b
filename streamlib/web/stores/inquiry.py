"""What a request asks for, looked through: nothing of it is taken for what it says without a look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

import msgspec
from starlette.requests import Request

from streamlib.errors import InvalidStateStoreError
from streamlib.queries.listing import DEFAULT_ROWS, MOST_ROWS, Bounds, Cursor
from streamlib.queries.metadata import find_store, task_of_key
from streamlib.queries.parts import Question
from streamlib.records import TaskId
from streamlib.runtime.local_stores import LocalStores
from streamlib.topology.nodes import StoreSpec

_LATEST = (1 << 63) - 1


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says, looked through."""

    question: Question
    bounds: Bounds
    limit: int = DEFAULT_ROWS
    cursor: Cursor | None = None
    as_of: int | None = None


class Inquiry(NamedTuple):
    """One request."""

    request: Request
    stores: LocalStores
    asked: Asked
    spec: StoreSpec

    @property
    def tasks(self) -> tuple[TaskId, ...]:
        """Those that have a part of the store, by partition; none of a global one."""
        return find_store(self.stores.plan, self.spec.name)[1]

    def task_of(self, key: Any) -> TaskId:
        """Which of them has a key."""
        if (partition := self.asked.question.partition) is not None:
            return self.tasks[partition]
        return task_of_key(self.stores.plan, self.spec.name, key)


def asked_by(request: Request, also: Iterable[str]) -> Asked:
    """What a request says; `also` has the parameters it may have besides those of all.

    Raises:
        InvalidStateStoreError: it says something else.
    """
    given = parameters(request, ("stale", "partition", "limit", "cursor", *also))
    limit = _number(given, "limit", 1, MOST_ROWS)
    return Asked(
        question=Question(
            store=request.path_params["name"],
            stale=_flag(given, "stale"),
            partition=_number(given, "partition", 0, (1 << 31) - 1),
        ),
        bounds=Bounds(
            first=given.get("from"),
            last=given.get("to"),
            prefix=given.get("prefix"),
            from_ms=_number(given, "from_ms", 0, _LATEST),
            to_ms=_number(given, "to_ms", 0, _LATEST),
            reverse=_flag(given, "reverse"),
        ),
        limit=DEFAULT_ROWS if limit is None else limit,
        cursor=Cursor.decode(given["cursor"]) if "cursor" in given else None,
        as_of=_number(given, "as_of", 0, _LATEST),
    )


def parameters(request: Request, known: Iterable[str]) -> dict[str, str]:
    """The parameters of a request, each at most once.

    Raises:
        InvalidStateStoreError: there is one that is not known.
    """
    known, given = set(known), {}
    try:
        pairs = parse_qsl(request.url.query, keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError as error:
        raise InvalidStateStoreError(f"the parameters cannot be read: {error}") from error
    for name, value in pairs:
        if name not in known:
            takes = ", ".join(sorted(known)) or "none"
            raise InvalidStateStoreError(f"unknown parameter {name!r:.80}; there are {takes}")
        if name in given:
            raise InvalidStateStoreError(f"{name} is given twice: leave one of them out")
        given[name] = value
    return given


def _number(given: Mapping[str, str], name: str, lowest: int, highest: int) -> int | None:
    if name not in given:
        return None
    text = given[name]
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and lowest <= int(text) <= highest):
        raise InvalidStateStoreError(f"{name} is a number from {lowest} to {highest}, not {text!r:.80}")
    return int(text)


def _flag(given: Mapping[str, str], name: str) -> bool:
    match given.get(name, "false"):
        case "true":
            return True
        case "false":
            return False
        case text:
            raise InvalidStateStoreError(f"{name} is true or false, not {text!r:.80}")


def key_text(request: Request) -> str:
    """The key, as it stands in the address: bytes that are no UTF-8 would have been replaced by something else."""
    raw = request.scope.get("raw_path") or quote(request.url.path).encode()
    try:
        unquote_to_bytes(raw.partition(b"?")[0]).decode()
    except UnicodeDecodeError as error:
        raise InvalidStateStoreError("the key in the address is not UTF-8") from error
    return str(request.path_params["key"])


def path_of(request: Request, said: Mapping[str, str | None]) -> str:
    """The path and the parameters of a request, with some of them replaced."""
    given = dict(parse_qsl(request.url.query, keep_blank_values=True))
    changed = {name: value for name, value in {**given, **said}.items() if value is not None}
    path = quote(request.scope["path"], safe="/")
    if (key := request.path_params.get("key")) is not None:
        path = f"/stores/{quote(request.path_params['name'], safe='')}/keys/{quote(key, safe='')}"
    return f"{path}?{urlencode(changed)}" if changed else path
