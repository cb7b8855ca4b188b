"""The broker goes away and comes back; nobody has to be restarted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from streamlib.testing.broker import Broker
from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.harness import Bench, check_counts, numbered, opened


@pytest.mark.broker
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_worker_outlives_its_broker(unique_name: Callable[[str], str], tmp_path: Path, how: str) -> None:
    with Broker.start(data_dir=tmp_path / "kafka") as broker:
        target = KafkaTarget(broker.bootstrap_servers, broker.version, broker)
        async with opened(Bench(target, unique_name("outlive"), tmp_path)) as bench:
            worker = bench.start()
            await bench.produce(numbered(40))
            await bench.until_all_committed(worker)
            await anyio.to_thread.run_sync(broker.kill_node if how == "kill" else broker.stop_node, 0)
            await anyio.sleep(2)
            await anyio.to_thread.run_sync(broker.start_node, 0)
            await bench.produce(numbered(40, start=40))
            await bench.until_all_committed(worker)
            await worker.stop()
            check_counts(numbered(80), await bench.read())
