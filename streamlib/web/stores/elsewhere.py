"""Asks the worker that has what is not here."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple

import anyio
import anyio.to_thread
from starlette.responses import Response

from streamlib.errors import InvalidStateStoreError, StateStoreNotAvailableError
from streamlib.records import HostInfo, TaskId
from streamlib.runtime.local_stores import LocalStores
from streamlib.security import Secret
from streamlib.web.stores.inquiry import Inquiry, path_of

FORWARD_S = 5.0
"""Another worker that has not answered by then does not."""

MOST_FORWARDS = 16
"""Requests to other workers at a time; more wait for these."""

LONGEST_ANSWER = 64 << 20
RETRY_AFTER_S = 1
FORWARDED = "streamlib-forwarded"
"""The header that says that a worker asks, of which application, and that it is not to be passed on."""


class Answer(NamedTuple):
    """What another worker has answered."""

    status: int
    body: bytes

    def response(self) -> Response:
        """The same, as ours."""
        headers = {"Retry-After": str(RETRY_AFTER_S)} if self.status == 503 else None
        return Response(self.body, self.status, headers, media_type="application/json")


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
        path, failure = path_of(inquiry.request, said or {}), ""
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
