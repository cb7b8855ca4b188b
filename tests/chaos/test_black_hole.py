"""A worker that the network has lost: evicted, replaced, and fenced when it comes back."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from streamlib.testing.broker import Broker
from streamlib.testing.plugin import KafkaTarget
from tests.chaos.proxy import HOST, Direction, Fault, Proxy
from tests.exactly_once.harness import Bench, Worker, check_counts, numbered, opened


class Site:
    """A broker behind a proxy, and a bench whose workers only know the proxy."""

    def __init__(self, bench: Bench, proxy: Proxy) -> None:
        self.bench = bench
        self.proxy = proxy

    def start(self, name: str) -> Worker:
        """A worker; it is called by its name in the proxy, too."""
        proxied = f"{HOST}:{self.proxy.port}"
        return self.bench.start(name=name, client_id=name, bootstrap_servers=proxied, request_timeout_ms=3_000)


@pytest.fixture
async def site(unique_name: Callable[[str], str], unused_tcp_port: int, tmp_path: Path) -> AsyncIterator[Site]:
    with Broker.start(proxied_port=unused_tcp_port) as broker:
        proxy = Proxy(unused_tcp_port, broker.proxy_target_port, random.Random(1))
        await proxy.open()
        target = KafkaTarget(broker.bootstrap_servers, broker.version, broker)
        async with opened(Bench(target, unique_name("hole"), tmp_path)) as bench:
            yield Site(bench, proxy)
        await proxy.close()


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.parametrize("silent", [frozenset(Direction), frozenset({Direction.RESPONSE})], ids=["both", "answers"])
async def test_a_black_holed_worker_is_replaced_and_repeats_nothing_when_it_returns(
    site: Site, silent: frozenset[Direction]
) -> None:
    bench = site.bench
    lost, other = site.start("lost"), site.start("other")
    await bench.produce(numbered(40))
    await bench.until_all_committed(lost, other)
    await bench.until(_has(1, lost, other), lost, other)
    site.proxy.set(Fault(client="lost", silent=silent))
    await bench.produce(numbered(40, start=40))
    await bench.until(_has(2, other), lost, other)
    await bench.until_all_committed(lost, other)
    site.proxy.set(None)
    await bench.until(_has(1, lost, other), lost, other)
    await bench.produce(numbered(40, start=80))
    await bench.until_all_committed(lost, other)
    for worker in (lost, other):
        await worker.stop()
    check_counts(numbered(120), await bench.read())


def _has(count: int, *workers: Worker) -> Callable[[], object]:
    """Whether each worker has so many tasks."""

    async def each_has() -> bool:
        return all(len(worker.status.get("tasks", ())) == count for worker in workers)

    return each_has
