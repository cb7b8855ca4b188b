"""What is in the stores, over HTTP, whichever worker is asked.

/stores                         which there are, and who has them
/stores/NAME/keys/KEY           the row of a key; as_of= of a versioned store
/stores/NAME/keys/KEY?from_ms=&to_ms=     its windows, sessions or versions
/stores/NAME?from=&to=&prefix=&reverse=   rows, partition by partition; from_ms= and to_ms= of windows and sessions
    limit=, cursor=             so many, and go on where the last answer ended
    stale=true                  copies will do (KIP-535); partition= only this one

What another worker has is asked there, once: a worker that was asked so asks nobody else. While a task moves the answer
is 503 with Retry-After, never that a key is not there. Errors are JSON: `error` is one of a few words, `message` is for
people.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from streamlib.config import StreamsConfig
from streamlib.errors import (
    InvalidStateStoreError,
    InvalidStateStorePartitionError,
    SerializationError,
    StateStoreMigratedError,
    StateStoreNotAvailableError,
    StreamsError,
    StreamsNotStartedError,
    StreamsRebalancingError,
    StreamsStoppedError,
    UnknownStateStoreError,
)
from streamlib.queries.listing import Row, row_of, scan_for
from streamlib.queries.metadata import find_store
from streamlib.queries.parts import part_of_key, spec_of
from streamlib.queries.text import expected, key_of
from streamlib.runtime.local_stores import LocalStores
from streamlib.topology.nodes import StoreSpec
from streamlib.web.stores.elsewhere import FORWARDED, RETRY_AFTER_S, Elsewhere
from streamlib.web.stores.inquiry import Inquiry, asked_by, key_text, parameters
from streamlib.web.stores.listing import Listing, of_part, span_of

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

_MANY_BY_KEY = ("window", "timestamped_window", "session")
"""Kinds of stores that have several rows for a key."""


class Queried(Protocol):
    """`KafkaStreams`, for those who ask for its stores."""

    @property
    def config(self) -> StreamsConfig: ...
    @property
    def local_stores(self) -> LocalStores: ...


class StoreRoutes:
    """Answers for the stores of one worker, and passes on what others have.

    Args:
        app: the application.
    """

    def __init__(self, app: Queried) -> None:
        self._app = app
        self._elsewhere = Elsewhere(app.config.application_id, app.config.web_token)

    def routes(self) -> list[BaseRoute]:
        """For the web server."""
        return [
            Route("/stores", self._answering(self._stores)),
            Route("/stores/{name}/keys/{key:path}", self._answering(self._key)),
            Route("/stores/{name}", self._answering(self._rows)),
        ]

    def _answering(self, endpoint: Endpoint) -> Endpoint:
        """An endpoint whose errors are answers."""
        own = self._app.config.application_id

        async def answered(request: Request) -> Response:
            try:
                if (wanted := request.headers.get(FORWARDED, own)) != own:
                    raise StateStoreNotAvailableError(
                        f"this is a worker of {own}, and one of {wanted:.80} was asked for"
                    )
                return await endpoint(request)
            except StreamsError as error:
                return _problem(*_status(error), str(error))

        return answered

    async def _stores(self, request: Request) -> Response:
        parameters(request, ())
        stores = self._app.local_stores
        found = [_described(stores, name) for name in sorted(stores.plan.store_names)]
        return _json({"stores": [each for each in found if each is not None]})

    async def _key(self, request: Request) -> Response:
        inquiry = self._inquiry(request, ("as_of", "from_ms", "to_ms", "reverse"))
        spec, asked, text = inquiry.spec, inquiry.asked, key_text(request)
        if spec.kind in _MANY_BY_KEY or (spec.kind == "versioned" and asked.bounds.given):
            return await self._listed(inquiry, text)
        if asked.as_of is not None and spec.kind != "versioned":
            raise InvalidStateStoreError(f"as_of is for versioned stores, {spec.name} is none")
        if asked.bounds.given:
            scan_for(spec, asked.bounds)  # says what does not go with it
            raise InvalidStateStoreError("reverse is for lists of rows, this is one row")
        return await self._one(inquiry, text)

    async def _one(self, inquiry: Inquiry, text: str) -> Response:
        """The row of a key."""
        spec, asked, stores = inquiry.spec, inquiry.asked, inquiry.stores
        key = key_of(spec, text)
        try:
            part = part_of_key(stores, asked.question, key)
        except (InvalidStateStorePartitionError, StreamsRebalancingError) as error:
            return (await self._elsewhere.ask(inquiry, inquiry.task_of(key), error)).response()
        value = part.read(lambda store: store.get(key) if asked.as_of is None else store.get(key, asked.as_of))
        if value is None:
            return _problem(404, "key_not_found", f"store {spec.name} has no {text!r:.80}", of_part(part, stores))
        return _json({"store": spec.name, **_fields(row_of(key, value)), **_encodings(spec), **of_part(part, stores)})

    async def _rows(self, request: Request) -> Response:
        inquiry = self._inquiry(request, ("from", "to", "prefix", "from_ms", "to_ms", "reverse"))
        return await self._listed(inquiry, None)

    async def _listed(self, inquiry: Inquiry, key: str | None) -> Response:
        """Rows of all partitions, or those of a key."""
        spec, asked = inquiry.spec, inquiry.asked
        scan = scan_for(spec, msgspec.structs.replace(asked.bounds, key=key))
        first, last = span_of(inquiry, key)
        history = key is not None and spec.kind == "versioned"  # comes at once, it has no place to go on from
        listing = Listing(inquiry, self._elsewhere, scan)
        cursor = await listing.gather(first, first.partition if history else last, once=history)
        more = {"truncated": cursor is not None} if history else {"cursor": cursor and cursor.encode()}
        return _json({"store": spec.name, "rows": listing.rows, **more, **_encodings(spec), "parts": listing.parts})

    def _inquiry(self, request: Request, also: Iterable[str]) -> Inquiry:
        stores, asked = self._app.local_stores, asked_by(request, also)
        return Inquiry(request, stores, asked, spec_of(stores, asked.question))


def _status(error: StreamsError) -> tuple[int, str]:
    """The status, and the word for programs."""
    words: Iterable[tuple[type[StreamsError], int, str]] = (
        (UnknownStateStoreError, 404, "unknown_store"),
        (StreamsRebalancingError, 503, "rebalancing"),
        (StateStoreMigratedError, 503, "migrated"),
        (StreamsNotStartedError, 503, "not_started"),
        (StateStoreNotAvailableError, 503, "not_available"),
        (StreamsStoppedError, 503, "stopped"),
        (InvalidStateStorePartitionError, 503, "elsewhere"),
        (InvalidStateStoreError, 400, "bad_request"),
        (SerializationError, 400, "bad_key"),
    )
    return next(((status, word) for kind, status, word in words if isinstance(error, kind)), (500, "failed"))


def _problem(status: int, word: str, message: str, more: Mapping[str, Any] | None = None) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    return _json({"error": word, "message": message, **(more or {})}, status, headers)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value) + b"\n", status, headers, media_type="application/json")


def _fields(row: Row) -> dict[str, Any]:
    return {name: value for name in row.__struct_fields__ if (value := getattr(row, name)) is not None}


def _encodings(spec: StoreSpec) -> dict[str, str]:
    """Said where bytes are text."""
    found = {"key_encoding": spec.key.type, "value_encoding": spec.value.type}
    return {name: "base64" for name, type_ in found.items() if type_ is bytes}


def _described(stores: LocalStores, name: str) -> dict[str, Any] | None:
    spec, tasks = find_store(stores.plan, name)
    if spec.kind == "buffer":
        return None
    me, lags = stores.me, stores.lags().get(name, {})
    members = (me, *stores.others)
    return {
        "name": name,
        "kind": spec.kind,
        "key": spec.key.name,
        "key_as": expected(spec.key),
        "value": spec.value.name,
        "global": not tasks,
        "partitions": len(tasks),
        "active": {task.partition: each.endpoint for task in tasks for each in members if task in each.active},
        "here": [task.partition for task in tasks if task in me.active],
        "standby_here": [task.partition for task in tasks if task in me.standby],
        "lag": {partition: lag.offset_lag for partition, lag in lags.items()},
    }
