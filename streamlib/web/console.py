"""The web console: a page, and what it shows as JSON. `streamlib top` shows the same.

/                    the page
/api/worker          what this worker knows of itself: `WorkerSnapshot`
/api/application     all workers put together: `ApplicationSnapshot`
/api/topology        the graph, and where it is drawn: `Layout`; with the settings, secrets left out
/api/dead-letters    how many there are by topic, and the newest
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from importlib.resources import files
from typing import Any, Protocol, TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from streamlib.config import StreamsConfig
from streamlib.dead_letters.letters import Letter
from streamlib.dead_letters.recent import TopicOfLetters, recent_letters
from streamlib.engine.plan import dead_letter_topics
from streamlib.errors import StreamsError
from streamlib.kafka.connection import Connection
from streamlib.monitoring.address import Address
from streamlib.monitoring.observed import Observed
from streamlib.security import Secret, Security
from streamlib.snapshots.application import Answer, ApplicationSnapshot, put_together
from streamlib.snapshots.worker import WorkerSnapshot
from streamlib.topology.drawing import draw
from streamlib.topology.topology import Topology
from streamlib.web.layout import lay_out
from streamlib.web.peers import Peers

FRESH_S = 0.5
"""Whoever asks within this time is told the same, so that many pages cost no more than one."""

LETTERS = 20
LETTERS_FRESH_S = 5.0
LETTERS_PATIENCE_S = 15.0
LONGEST_TEXT = 2_000


ReadLetters: TypeAlias = Callable[[], Awaitable[list[TopicOfLetters]]]


class Shown(Observed, Protocol):
    """`KafkaStreams`, for those who look at it."""

    @property
    def config(self) -> StreamsConfig: ...
    @property
    def topology(self) -> Topology: ...
    def snapshot(self) -> WorkerSnapshot: ...


class Console:
    """The console of one worker, which shows all of them.

    Args:
        app: the application.
        others: where the other workers' consoles are now. May be called by any thread.
        read_letters: gets the dead letters; by default a connection is opened for each look at them.
    """

    def __init__(
        self,
        app: Shown,
        others: Callable[[], Collection[Address]] = tuple,
        read_letters: ReadLetters | None = None,
    ) -> None:
        self._app = app
        self._read_letters = read_letters or (lambda: letters_of(app))
        self._peers = Peers(app.config.application_id, others, app.config.web_token)
        self._latest: ApplicationSnapshot | None = None
        self._latest_s = 0.0
        self._asking = asyncio.Lock()
        self._letters: list[TopicOfLetters] = []
        self._letters_s = -LETTERS_FRESH_S
        self._reading = asyncio.Lock()
        self._page = files("streamlib.web").joinpath("static", "index.html").read_text()

    def routes(self) -> list[BaseRoute]:
        """For the web server."""
        return [
            Route("/", self._index),
            Route("/api/worker", self._worker),
            Route("/api/application", self._application),
            Route("/api/topology", self._topology),
            Route("/api/dead-letters", self._dead_letters),
        ]

    def close(self) -> None:
        """Ask nobody any more."""
        self._peers.close()

    async def _index(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers={"Cache-Control": "no-cache"})

    def _worker(self, request: Request) -> Response:
        return _json(self._app.snapshot())

    async def _application(self, request: Request) -> Response:
        async with self._asking:
            if self._latest is None or time.monotonic() - self._latest_s > FRESH_S:
                self._latest = await self._ask_all(self._app.config.application_server or str(request.url.netloc))
                self._latest_s = time.monotonic()
            return _json(self._latest)

    async def _ask_all(self, address: str) -> ApplicationSnapshot:
        own, answers = await asyncio.gather(asyncio.to_thread(self._app.snapshot), self._peers.answers())
        others = [_not_ourselves(answer, own) for answer in answers]
        return put_together([Answer(address, own, is_here=True), *others], time.time_ns() // 1_000_000)

    def _topology(self, request: Request) -> Response:
        layout = lay_out(draw(self._app.topology))
        return _json({"layout": layout, "text": self._app.topology.describe(), "settings": shown(self._app.config)})

    async def _dead_letters(self, request: Request) -> Response:
        async with self._reading:
            if time.monotonic() - self._letters_s > LETTERS_FRESH_S:
                try:
                    async with asyncio.timeout(LETTERS_PATIENCE_S):
                        self._letters = await self._read_letters()
                except TimeoutError:
                    return _json({"error": f"the cluster did not answer within {LETTERS_PATIENCE_S:.0f} s"}, 503)
                except StreamsError as error:
                    return _json({"error": str(error)}, 503)
                self._letters_s = time.monotonic()
            return _json({"topics": [_topic(each) for each in self._letters]})


def _not_ourselves(answer: Answer, own: WorkerSnapshot) -> Answer:
    """On another machine 127.0.0.1 is somebody else."""
    said = answer.snapshot
    if said is None or (said.host, said.pid, said.worker_id) != (own.host, own.pid, own.worker_id):
        return answer
    return Answer(answer.address, None, 1, "its console listens on its own machine only")


async def letters_of(app: Shown) -> list[TopicOfLetters]:
    """Of the topics that the topology and the settings name.

    Raises:
        KafkaError: the cluster cannot be reached, or refuses.
    """
    topics = dead_letter_topics(app.topology, app.config.error_policies)
    if not topics:
        return []
    connection = await Connection.open(app.config)
    try:
        return await recent_letters(connection, topics, LETTERS)
    finally:
        await connection.close()


def shown(config: StreamsConfig) -> dict[str, Any]:
    """The settings as text, without secrets.

    >>> shown(StreamsConfig(application_id="shop", web_token="kept to ourselves"))["web_token"]
    'set, and not shown'
    """
    of_connection = Security.__struct_fields__
    names = sorted(config.__struct_fields__, key=lambda name: name in of_connection)  # these come last
    return {name: _shown(getattr(config, name)) for name in names}


def _shown(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return "set, and not shown" if isinstance(value, Secret) else str(value)


def _topic(letters: TopicOfLetters) -> dict[str, Any]:
    return {"topic": letters.topic, "size": letters.size, "newest": [_letter(each) for each in letters.newest]}


def _letter(letter: Letter) -> dict[str, Any]:
    key, value, timestamp, headers = letter.record
    return {
        "partition": letter.partition.partition,
        "offset": letter.offset,
        "timestamp": timestamp,
        "key": _text(key),
        "value": _text(value),
        "headers": [(name, _text(content)) for name, content in headers],
        "exception": letter.exception,
        "message": letter.message,
        "stacktrace": letter.stacktrace,
        "source": {"topic": letter.source_topic, "partition": letter.source_partition, "offset": letter.source_offset},
        "node": letter.node,
        "application": letter.application,
    }


def _text(content: bytes | None) -> str | None:
    """Bytes for people."""
    if content is None:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.hex(" ")
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}... ({len(content):,} bytes)"


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
