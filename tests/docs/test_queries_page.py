"""The examples of the page about stores from outside run, as one program, on a worker over fakes."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import anyio

from streamlib.queries.parts import Question
from streamlib.queries.views import open_view
from streamlib.runtime.assignor import Instructions
from tests.runtime.fakes import IN0, IN1, Bench, until

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "queries.md"


class App:
    """What the page asks of an application, over a bench."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def store(self, name: str, kind: Any = None) -> Any:
        return open_view(lambda: self._bench.worker.local, Question(store=name), kind, with_timestamps=False)

    def all_local_store_partition_lags(self) -> Any:
        return self._bench.worker.local.lags()


def test_the_examples_run() -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    assert "counts" in str(names["topology"].describe())
    asyncio.run(_ask(names))


async def _ask(names: dict[str, Any]) -> None:
    bench = Bench()
    bench.broker.write(IN0, "a", "a")
    bench.group.assigned = (IN0, IN1)
    bench.group.instructions = Instructions(members=["m"])
    async with anyio.create_task_group() as children:
        children.start_soon(lambda: bench.worker.run(leave=True))
        await until(lambda: bench.committed(IN0) == 2)
        assert await names["count_of"](App(bench), "a") == 2
        assert await names["count_of"](App(bench), "d") == 0
        assert await names["first_rows"](App(bench), 1) == [("a", 2)]
        assert names["farthest_behind"](App(bench), "counts") == 0
        bench.worker.stop()
