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
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple, Protocol, TypeAlias
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

import anyio
import anyio.to_thread
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
from streamlib.queries.listing import DEFAULT_ROWS, MOST_ROWS, Bounds, Cursor, Row, Scan, row_of, scan_for, take_page
from streamlib.queries.metadata import find_store, task_of_key
from streamlib.queries.parts import Part, Question, part_of_key, parts_here, spec_of
from streamlib.queries.text import expected, key_of
from streamlib.records import HostInfo, TaskId
from streamlib.runtime.local_stores import LocalStores
from streamlib.security import Secret
from streamlib.state.backend import PAGE_BYTES
from streamlib.topology.nodes import StoreSpec

FORWARD_S = 5.0
"""Another worker that has not answered by then does not."""

MOST_FORWARDS = 16
"""Requests to other workers at a time; more wait for these."""

LIST_S = 10.0
"""After so long a listing ends with the rows it has."""

MOST_READ_BYTES = 16 << 20
"""So much of a store is read for one page of rows, however few of them are asked for."""

LONGEST_ANSWER = 64 << 20
RETRY_AFTER_S = 1
FORWARDED = "streamlib-forwarded"
"""The header that says that a worker asks, of which application, and that it is not to be passed on."""


Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


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
        _parameters(request, ())
        stores = self._app.local_stores
        found = [_described(stores, name) for name in sorted(stores.plan.store_names)]
        return _json({"stores": [each for each in found if each is not None]})

    async def _key(self, request: Request) -> Response:
        inquiry = self._inquiry(request, ("as_of", "from_ms", "to_ms", "reverse"))
        spec, asked, text = inquiry.spec, inquiry.asked, _key_text(request)
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
            return _problem(404, "key_not_found", f"store {spec.name} has no {text!r:.80}", _of_part(part, stores))
        return _json({"store": spec.name, **_fields(row_of(key, value)), **_encodings(spec), **_of_part(part, stores)})

    async def _rows(self, request: Request) -> Response:
        inquiry = self._inquiry(request, ("from", "to", "prefix", "from_ms", "to_ms", "reverse"))
        return await self._listed(inquiry, None)

    async def _listed(self, inquiry: Inquiry, key: str | None) -> Response:
        """Rows of all partitions, or those of a key."""
        spec, asked = inquiry.spec, inquiry.asked
        scan = scan_for(spec, msgspec.structs.replace(asked.bounds, key=key))
        first, last = _span(inquiry, key)
        history = key is not None and spec.kind == "versioned"  # comes at once, it has no place to go on from
        listing = _Listing(inquiry, self._elsewhere, scan)
        cursor = await listing.gather(first, first.partition if history else last, once=history)
        more = {"truncated": cursor is not None} if history else {"cursor": cursor and cursor.encode()}
        return _json({"store": spec.name, "rows": listing.rows, **more, **_encodings(spec), "parts": listing.parts})

    def _inquiry(self, request: Request, also: Iterable[str]) -> Inquiry:
        stores, asked = self._app.local_stores, _asked(request, also)
        return Inquiry(request, stores, asked, spec_of(stores, asked.question))


_MANY_BY_KEY = ("window", "timestamped_window", "session")
"""Kinds of stores that have several rows for a key."""


def _span(inquiry: Inquiry, key: str | None) -> tuple[Cursor, int]:
    """Where a listing begins, and the partition that it ends with."""
    asked, tasks = inquiry.asked, inquiry.tasks
    only = asked.question.partition
    if key is not None and tasks and only is None:
        only = inquiry.task_of(key_of(inquiry.spec, key)).partition
    first, last = (0, max(len(tasks) - 1, 0)) if only is None else (only, only)
    if asked.cursor is not None and not first <= asked.cursor.partition <= last:
        raise InvalidStateStoreError("cursor is one of another listing: leave it out to begin at the first row")
    return asked.cursor or Cursor(first), last


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


class Answer(NamedTuple):
    """What another worker has answered."""

    status: int
    body: bytes

    def response(self) -> Response:
        """The same, as ours."""
        headers = {"Retry-After": str(RETRY_AFTER_S)} if self.status == 503 else None
        return Response(self.body, self.status, headers, media_type="application/json")


class _Listing:
    """Rows that were found so far, of however many partitions, and who had them."""

    def __init__(self, inquiry: Inquiry, elsewhere: Elsewhere, scan: Scan) -> None:
        self._inquiry = inquiry
        self._elsewhere = elsewhere
        self._scan = scan
        self._size_bytes = 0
        self.rows: list[Any] = []
        self.parts: list[Any] = []

    async def gather(self, first: Cursor, last: int, *, once: bool = False) -> Cursor | None:
        """Rows from a place up to a partition, as many as there is room and time for; where those after them begin."""
        cursor, until_s = first, anyio.current_time() + LIST_S
        while True:
            try:
                following = await self._page(cursor)
            except StateStoreNotAvailableError:
                if not self.rows:
                    raise
                return cursor  # what there is so far; who goes on is told why not
            if following is None and cursor.partition < last:
                following = Cursor(cursor.partition + 1)
            if following is None or once or not self._room or anyio.current_time() >= until_s:
                return following
            cursor = following

    @property
    def _room(self) -> int:
        """For how many more rows."""
        return 0 if self._size_bytes >= PAGE_BYTES else self._inquiry.asked.limit - len(self.rows)

    async def _page(self, cursor: Cursor) -> Cursor | None:
        """The next rows of one partition, and where those after them begin; None after the last."""
        question = msgspec.structs.replace(
            self._inquiry.asked.question, partition=cursor.partition, after=cursor.after, most_bytes=MOST_READ_BYTES
        )
        try:
            (part,) = parts_here(self._inquiry.stores, question)
        except (InvalidStateStorePartitionError, StreamsRebalancingError) as error:
            return await self._page_elsewhere(cursor, error)
        page, following = await anyio.to_thread.run_sync(
            lambda: take_page(part, part.read(self._scan), self._room), abandon_on_cancel=True
        )
        self.rows += page
        self._size_bytes += sum(len(row.key) + len(row.value) for row in page)
        self._note(_of_part(part, self._inquiry.stores))
        return following

    async def _page_elsewhere(self, cursor: Cursor, why: InvalidStateStoreError) -> Cursor | None:
        """The same, from another worker.

        Raises:
            StateStoreNotAvailableError: it cannot answer now.
            InvalidStateStoreError: or at all.
        """
        said = {
            "partition": str(cursor.partition),
            "limit": str(self._room),
            "cursor": None if cursor.after is None else cursor.encode(),
        }
        answer = await self._elsewhere.ask(self._inquiry, self._inquiry.tasks[cursor.partition], why, said)
        told = _TOLD.decode(answer.body)
        if answer.status == 503:
            raise StateStoreNotAvailableError(told.message)
        if answer.status != 200:
            raise InvalidStateStoreError(told.message)
        self.rows += told.rows
        self._size_bytes += len(answer.body)
        for part in told.parts:
            self._note(part)
        if told.truncated:
            return Cursor(0)  # there is more, and no way to go on
        return None if told.cursor is None else Cursor.decode(told.cursor)

    def _note(self, part: dict[str, Any]) -> None:
        if part not in self.parts:
            self.parts.append(part)


class _Told(msgspec.Struct):
    """What is read of another worker's listing; the rest goes through as it is."""

    rows: list[msgspec.Raw] = []
    parts: list[dict[str, Any]] = []
    cursor: str | None = None
    truncated: bool = False
    message: str = ""


_TOLD = msgspec.json.Decoder(_Told)


class Elsewhere:
    """Asks other workers, each request at most once.

    Args:
        application_id: whose workers they are.
        token: lets us in.
    """

    def __init__(self, application_id: str, token: Secret | None) -> None:
        self._headers = {FORWARDED: application_id}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token.reveal()}"
        self._limiter: anyio.CapacityLimiter | None = None  # of the event loop that asks first

    async def ask(
        self,
        inquiry: Inquiry,
        task: TaskId,
        why: InvalidStateStoreError,
        said: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """The answer of who has a task, or of who has a copy if that will do.

        Args:
            inquiry: what is asked.
            task: whose part of the store it is about.
            why: it is not answered here; raised if nobody else can be asked.
            said: parameters in place of those of the request; None takes one out.

        Raises:
            StateStoreNotAvailableError: who has it does not answer.
        """
        if FORWARDED in inquiry.request.headers:
            raise StateStoreNotAvailableError(str(why))  # who asks is to look again for who has it
        hosts = _hosts_of(inquiry.stores, task, stale=inquiry.asked.question.stale)
        if not hosts:
            raise why
        path, failure = _path(inquiry.request, said or {}), ""
        for host in hosts:
            try:
                return await self._get(host, path)
            except (OSError, HTTPException) as error:
                failure = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StateStoreNotAvailableError(
            f"store {inquiry.spec.name}, partition {task.partition}: {', '.join(map(str, hosts))} has it, and does "
            f"not answer ({failure}): ask again in a moment"
        )

    async def _get(self, host: HostInfo, path: str) -> Answer:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(MOST_FORWARDS)
        return await anyio.to_thread.run_sync(
            _get, host, path, self._headers, abandon_on_cancel=True, limiter=self._limiter
        )


def _get(host: HostInfo, path: str, headers: Mapping[str, str]) -> Answer:
    connection = HTTPConnection(host.host, host.port, timeout=FORWARD_S)
    try:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        body = response.read(LONGEST_ANSWER)
    finally:
        connection.close()
    if response.getheader("content-type", "").partition(";")[0] != "application/json":
        hint = ": is its web_token another one?" if response.status == 401 else ""
        raise HTTPException(f"it answers with status {response.status}{hint}")
    return Answer(response.status, body)


def _hosts_of(stores: LocalStores, task: TaskId, *, stale: bool) -> list[HostInfo]:
    """Whom to ask, in this order."""
    active = [each for each in stores.others if task in each.active]
    copies = [each for each in stores.others if stale and task in each.standby]
    return [HostInfo.parse(each.endpoint) for each in (*active, *copies) if each.endpoint]


# --- what is asked ----------------------------------------------------------------------------------------------------


def _asked(request: Request, also: Iterable[str]) -> Asked:
    given = _parameters(request, ("stale", "partition", "limit", "cursor", *also))
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


_LATEST = (1 << 63) - 1


def _parameters(request: Request, known: Iterable[str]) -> dict[str, str]:
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


def _key_text(request: Request) -> str:
    """The key, as it stands in the address: bytes that are no UTF-8 would have been replaced by something else."""
    raw = request.scope.get("raw_path") or quote(request.url.path).encode()
    try:
        unquote_to_bytes(raw.partition(b"?")[0]).decode()
    except UnicodeDecodeError as error:
        raise InvalidStateStoreError("the key in the address is not UTF-8") from error
    return str(request.path_params["key"])


def _path(request: Request, said: Mapping[str, str | None]) -> str:
    """The path and the parameters of a request, with some of them replaced."""
    given = dict(parse_qsl(request.url.query, keep_blank_values=True))
    changed = {name: value for name, value in {**given, **said}.items() if value is not None}
    path = quote(request.scope["path"], safe="/")
    if (key := request.path_params.get("key")) is not None:
        path = f"/stores/{quote(request.path_params['name'], safe='')}/keys/{quote(key, safe='')}"
    return f"{path}?{urlencode(changed)}" if changed else path


# --- what is answered -------------------------------------------------------------------------------------------------


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


def _of_part(part: Part[Any], stores: LocalStores) -> dict[str, Any]:
    """Where a row is from, and how current it is."""
    copy = part.copy
    return {
        "partition": copy.partition,
        "worker": stores.me.worker,
        "stale": not copy.is_active,
        "lag": None if copy.lag is None else copy.lag.offset_lag,
    }


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
