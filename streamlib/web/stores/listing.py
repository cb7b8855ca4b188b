"""Rows of several partitions, wherever they are."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.to_thread
import msgspec

from streamlib.errors import (
    InvalidStateStoreError,
    InvalidStateStorePartitionError,
    StateStoreNotAvailableError,
    StreamsRebalancingError,
)
from streamlib.queries.listing import Cursor, Scan, take_page
from streamlib.queries.parts import Part, parts_here
from streamlib.queries.text import key_of
from streamlib.runtime.local_stores import LocalStores
from streamlib.state.backend import PAGE_BYTES
from streamlib.web.stores.elsewhere import Elsewhere
from streamlib.web.stores.inquiry import Inquiry

LIST_S = 10.0
"""After so long a listing ends with the rows it has."""

MOST_READ_BYTES = 16 << 20
"""So much of a store is read for one page of rows, however few of them are asked for."""


class Listing:
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
        self._note(of_part(part, self._inquiry.stores))
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


def span_of(inquiry: Inquiry, key: str | None) -> tuple[Cursor, int]:
    """Where a listing begins, and the partition that it ends with."""
    asked, tasks = inquiry.asked, inquiry.tasks
    only = asked.question.partition
    if key is not None and tasks and only is None:
        only = inquiry.task_of(key_of(inquiry.spec, key)).partition
    first, last = (0, max(len(tasks) - 1, 0)) if only is None else (only, only)
    if asked.cursor is not None and not first <= asked.cursor.partition <= last:
        raise InvalidStateStoreError("cursor is one of another listing: leave it out to begin at the first row")
    return asked.cursor or Cursor(first), last


def of_part(part: Part[Any], stores: LocalStores) -> dict[str, Any]:
    """Where a row is from, and how current it is."""
    copy = part.copy
    return {
        "partition": copy.partition,
        "worker": stores.me.worker,
        "stale": not copy.is_active,
        "lag": None if copy.lag is None else copy.lag.offset_lag,
    }
