"""The thread that speaks for a worker, against a real coordinator."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from streamlib.config import StreamsConfig
from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.connection import Connection
from streamlib.kafka.stand_in import ThreadStandIn
from streamlib.runtime.ports import Beat, Leave, Subscription
from streamlib.testing.plugin import KafkaTarget

SESSION_MS = 6000


class Saying:
    """A watch that wants something said at each look."""

    look_every_ms = 100.0

    def __init__(self, steps: Sequence[Beat | Leave | None]) -> None:
        self._steps = steps
        self.looks = self.answers = 0

    def look(self, awake_ms: float) -> Beat | Leave | None:
        step = self._steps[min(self.looks, len(self._steps) - 1)]
        self.looks += 1
        return step

    def answered(self) -> None:
        self.answers += 1


@pytest.fixture
def config(kafka: KafkaTarget, unique_name: Callable[[str], str]) -> StreamsConfig:
    return StreamsConfig(
        application_id=unique_name("app"), bootstrap_servers=kafka.bootstrap_servers, session_timeout_ms=SESSION_MS
    )


async def until_looked(watch: Saying, times: int) -> None:
    while watch.looks < times:
        await asyncio.sleep(0.02)


async def test_it_keeps_a_member_that_has_not_read_the_answer_to_its_join(config: StreamsConfig) -> None:
    """Held while its join was answered: the member knows the old generation, and has not synced in the new one."""
    connection, stand_in = await Connection.open(config), ThreadStandIn(config)
    group, subscription = connection.group(), Subscription(("in",))
    first = await group.join("", subscription)
    await group.sync(first.generation, first.member_id, {})
    second = await group.join(first.member_id, Subscription(("in",), user_data=b"other"))
    assert second.generation == first.generation + 1

    watch = Saying([Beat(first.member_id, (first.generation, second.generation))])
    stand_in.start(watch)
    await asyncio.sleep(1.5 * SESSION_MS / 1000)
    await stand_in.close()
    assert watch.answers > 0

    await group.sync(second.generation, second.member_id, {})
    await group.heartbeat(second.generation, second.member_id)
    await group.leave(second.member_id)
    await connection.close()


@pytest.mark.parametrize("instance_id", [None, "one"])
async def test_it_leaves_at_once(config: StreamsConfig, instance_id: str | None) -> None:
    settings = {**{f: getattr(config, f) for f in config.__struct_fields__}, "group_instance_id": instance_id}
    config = StreamsConfig(**settings)
    connection, stand_in = await Connection.open(config), ThreadStandIn(config)
    group = connection.group()
    joined = await group.join("", Subscription(("in",)))
    await group.sync(joined.generation, joined.member_id, {})

    watch = Saying([Leave(joined.member_id), None])
    stand_in.start(watch)
    with pytest.raises(KafkaError) as caught:  # noqa: PT012
        while True:
            await group.heartbeat(joined.generation, joined.member_id)
            await asyncio.sleep(0.02)
    assert caught.value.code == ErrorCode.UNKNOWN_MEMBER_ID
    await stand_in.close()
    await connection.close()


async def test_a_quiet_watch_costs_a_thread_and_no_connection(unused_ports: list[int]) -> None:
    config = StreamsConfig(application_id="app", bootstrap_servers=f"localhost:{unused_ports[0]}")
    stand_in, watch = ThreadStandIn(config), Saying([None])
    before = threading.active_count()
    stand_in.start(watch)
    await until_looked(watch, 2)
    assert threading.active_count() == before + 1
    await stand_in.close()
    await stand_in.close()  # harmless


async def test_brokers_that_cannot_be_reached_do_not_end_it(unused_ports: list[int]) -> None:
    config = StreamsConfig(application_id="app", bootstrap_servers=f"localhost:{unused_ports[0]}")
    stand_in, watch = ThreadStandIn(config), Saying([Beat("m", (1,)), Leave("m")])
    stand_in.start(watch)
    await until_looked(watch, 10)
    await stand_in.close()
