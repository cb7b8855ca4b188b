"""Global stores are answered for once this worker has all of their topics."""

from __future__ import annotations

import anyio
import pytest

from streamlib import StreamsBuilder
from streamlib.engine.global_state import GlobalState
from streamlib.engine.plan import make_plan
from streamlib.errors import ErrorCode, StateStoreNotAvailableError
from streamlib.queries.parts import Question
from streamlib.queries.views import ReadOnlyKeyValueStore, open_view
from streamlib.records import TopicPartition
from streamlib.runtime.assignor import Place
from streamlib.runtime.global_stores import GlobalStores
from streamlib.runtime.local_stores import LocalStores
from streamlib.runtime.shared_backend import SharedBackend
from streamlib.state.memory import InMemoryBackend
from tests.runtime.fakes import Bench, FakeFetcher, kafka_error, until

RATES = TopicPartition("rates", 0)


async def test_a_global_store_answers_when_it_has_been_filled_and_not_while_it_is_built_anew() -> None:
    builder = StreamsBuilder()
    builder.global_table("rates", key=str, value=bytes, store="rates")
    plan = make_plan(builder.build(), "app", {"rates": 1})
    bench = Bench()
    bench.broker.write(RATES, "eur", "usd")
    state = GlobalState(plan, SharedBackend(InMemoryBackend(), "this worker's copy"), now_ms=bench.clock.now_ms)
    fetcher = FakeFetcher(bench.script, bench.broker, "global")
    stores = GlobalStores(state, fetcher, bench.admin, bench.clock)
    local = LocalStores(plan, Place(), bench.membership, bench.tasks, bench.restorer, stores)

    def rates(*, stale: bool = False) -> ReadOnlyKeyValueStore[str, bytes]:
        view: ReadOnlyKeyValueStore[str, bytes] = open_view(
            lambda: local, Question(store="rates", stale=stale), None, with_timestamps=False
        )
        return view

    with pytest.raises(StateStoreNotAvailableError, match="has not read all of its topic yet"):
        await rates().get("eur")
    assert await rates(stale=True).get("eur") is None
    await stores.bootstrap(lambda: True)
    assert await rates().get("eur") == b"x"
    assert [key async for key, _ in rates().all()] == ["eur", "usd"]

    async with anyio.create_task_group() as children:
        children.start_soon(stores.run)
        answer = bench.script.hold("list_offsets latest_stable")
        fetcher.break_off(kafka_error(ErrorCode.OFFSET_OUT_OF_RANGE))
        await until(lambda: not stores.filled)
        with pytest.raises(StateStoreNotAvailableError):
            await rates().get("eur")
        answer.set()
        await until(lambda: stores.filled)
        assert await rates().get("usd") == b"x"
        children.cancel_scope.cancel()
