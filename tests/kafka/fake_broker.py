"""A broker that says what a test tells it to: real sockets and frames, no logic of its own.

    broker.answers["Metadata"] = lambda body: {"brokers": [broker.entry], "topics": []}

An answer is the response's body, or None to say nothing at all. Requests of one connection are answered in
turn, as a real broker does.
"""

from __future__ import annotations

import asyncio
import inspect
import struct
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self, TypeAlias

from streamlib.kafka.protocol.codec import decode_whole, encode
from streamlib.kafka.protocol.messages import APIS
from streamlib.kafka.protocol.schema import Api

Body: TypeAlias = Mapping[str, Any] | None
Answer: TypeAlias = Callable[[Any], Body | Awaitable[Body]]

_BY_KEY = {api.key: api for api in APIS.values()}
_HEADER = struct.Struct(">hhih")


class FakeBroker:
    """Node 0 of a cluster of one, unless a test says otherwise."""

    def __init__(self) -> None:
        self.node_id = 0
        self.port = 0
        self.versions = {api.key: api.versions for api in APIS.values()}
        self.features: dict[str, int] = {}
        self.requests: list[str] = []
        self.versions_used: defaultdict[str, list[int]] = defaultdict(list)
        self.raw: dict[str, bytes] = {}  # sent in place of a response's body
        self.connections = 0
        self.answers: dict[str, Answer] = {
            "ApiVersions": lambda _: self._api_versions(),
            "Metadata": lambda body: self.metadata({topic.name: 1 for topic in body.topics or ()}),
        }
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @classmethod
    async def start(cls) -> Self:
        """Listen on a free port."""
        broker = cls()
        broker._server = await asyncio.start_server(broker._serve, "127.0.0.1", 0)
        broker.port = broker._server.sockets[0].getsockname()[1]
        return broker

    async def stop(self) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Break the connections there are; new ones are taken."""
        for writer in list(self._writers):
            writer.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def entry(self) -> dict[str, Any]:
        """This broker, as metadata has it."""
        return {"node_id": self.node_id, "host": "127.0.0.1", "port": self.port}

    def metadata(self, counts: Mapping[str, int], *brokers: Mapping[str, Any]) -> dict[str, Any]:
        """A Metadata response with these topics, all led by this broker; a count of 0 is an unknown topic."""
        return {
            "brokers": [self.entry, *brokers],
            "controller_id": self.node_id,
            "topics": [self._topic(name, count) for name, count in counts.items()],
        }

    def _topic(self, name: str, count: int) -> dict[str, Any]:
        partitions = [{"partition_index": index, "leader_id": self.node_id} for index in range(count)]
        return {"name": name, "error_code": 0 if count else 3, "partitions": partitions}

    def _api_versions(self) -> dict[str, Any]:
        return {
            "api_keys": [
                {"api_key": key, "min_version": low, "max_version": high} for key, (low, high) in self.versions.items()
            ],
            "finalized_features_epoch": 1,
            "finalized_features": [
                {"name": name, "max_version_level": level, "min_version_level": level}
                for name, level in self.features.items()
            ],
        }

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                await self._answer(await reader.readexactly(size), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, frame: bytes, writer: asyncio.StreamWriter) -> None:
        key, version, correlation_id, name_size = _HEADER.unpack_from(frame)
        api = _BY_KEY[key]
        tags = 1 if version >= api.flexible else 0
        request = decode_whole(api, "request", version, frame, _HEADER.size + name_size + tags)
        self.requests.append(api.name)
        self.versions_used[api.name].append(version)
        answer = self.answers[api.name](request)
        body = await answer if inspect.isawaitable(answer) else answer
        if body is not None:
            data = self.raw.get(api.name, b"".join(encode(api, "response", version, body)))
            writer.write(response_frame(api, version, correlation_id, data))


def response_frame(api: Api, version: int, correlation_id: int, data: bytes) -> bytes:
    """A response as it goes over the wire, size first."""
    tags = b"\x00" if version >= api.flexible and api.name != "ApiVersions" else b""
    payload = struct.pack(">i", correlation_id) + tags + data
    return struct.pack(">i", len(payload)) + payload
