"""Asks the other workers of the application what they know of themselves, side by side, and waits for nobody long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Any, TypeAlias

import msgspec

from streamlib.monitoring.address import Address
from streamlib.security import Secret
from streamlib.snapshots.application import Answer
from streamlib.snapshots.worker import WorkerSnapshot

ANSWER_S = 1.5
"""A worker that has not answered by then does not."""

WAIT_S = 0.6
"""For so long whoever looks at the page waits for an answer; after that the one before is shown."""

PATH = "/api/worker"
MOST_AT_ONCE = 16

# Here, not where threads use it: msgspec 0.22 crashes where two of them read a type nobody has read before.
_SNAPSHOT = msgspec.json.Decoder(WorkerSnapshot)

Ask: TypeAlias = Callable[[Address], Coroutine[Any, Any, WorkerSnapshot]]


class PeerError(Exception):
    """A worker said something else than what it knows of itself."""


class Peers:
    """The other workers; `answers` is for one event loop, which asks them in threads.

    Args:
        application_id: whose workers they are.
        addresses: where they listen now.
        token: lets us in.
    """

    def __init__(
        self, application_id: str, addresses: Callable[[], Collection[Address]], token: Secret | None = None
    ) -> None:
        self._application_id = application_id
        self._addresses = addresses
        self._token = token
        self._peers: dict[Address, _Peer] = {}
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, "peers")

    async def answers(self) -> list[Answer]:
        """What each said, now or last."""
        wanted = sorted(self._addresses())
        self._peers = {each: self._peers.get(each) or _Peer(each) for each in wanted}
        asked = [peer.asked(self._ask) for peer in self._peers.values()]
        if asked:
            await asyncio.wait(asked, timeout=WAIT_S)
        return [peer.answer() for peer in self._peers.values()]

    def close(self) -> None:
        """Ask no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, address: Address) -> WorkerSnapshot:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._get, address)

    def _get(self, address: Address) -> WorkerSnapshot:
        """Raises PeerError, OSError or HTTPException."""
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token.reveal()}"}
        connection = HTTPConnection(address.host, address.port, timeout=ANSWER_S)
        try:
            connection.request("GET", PATH, headers=headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            hint = ": is its web_token another one?" if response.status == 401 else ""
            raise PeerError(f"it answers with status {response.status}{hint}")
        snapshot = read(body)
        if snapshot.application_id != self._application_id:
            raise PeerError(f"it belongs to the application {snapshot.application_id}")
        return snapshot


def read(body: bytes) -> WorkerSnapshot:
    """What another worker said of itself.

    Raises:
        PeerError: it cannot be read.
    """
    try:
        return _SNAPSHOT.decode(body)
    except msgspec.DecodeError as error:
        raise PeerError("it says what we do not understand: has it another version?") from error


class _Peer:
    """One of them: the request under way, and what came of those before."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._request: asyncio.Task[WorkerSnapshot] | None = None
        self._snapshot: WorkerSnapshot | None = None
        self._answered_s = time.monotonic()  # or when it was asked first
        self._problem = ""

    def asked(self, ask: Ask) -> asyncio.Task[WorkerSnapshot]:
        """Ask, unless an answer is still to come."""
        if self._request is None:
            self._request = asyncio.create_task(ask(self._address))
            self._request.add_done_callback(self._take)
        return self._request

    def answer(self) -> Answer:
        """What it said. It is silent once a request has failed, or takes longer than it may."""
        silent_ms = int((time.monotonic() - self._answered_s) * 1000)
        if self._problem or silent_ms > ANSWER_S * 1000:
            problem = self._problem or f"no answer within {ANSWER_S:.1f} s"
            return Answer(str(self._address), self._snapshot, max(silent_ms, 1), problem)
        return Answer(str(self._address), self._snapshot)

    def _take(self, request: asyncio.Task[WorkerSnapshot]) -> None:
        self._request = None
        if request.cancelled():
            return
        error = request.exception()
        if error is None:
            self._snapshot, self._problem, self._answered_s = request.result(), "", time.monotonic()
        elif isinstance(error, TimeoutError):
            self._problem = f"no answer within {ANSWER_S:.1f} s"
        elif isinstance(error, OSError | HTTPException | PeerError):
            self._problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
        else:
            raise error
