"""How one test runs everywhere: `@on_every_cluster` makes a test out of an async function that takes a cluster.

    @on_every_cluster
    async def test_new_topic_is_empty(cluster: Cluster) -> None: ...

pytest runs it for each kind of cluster (`conftest.py`), on the event loop that belongs to it. Further arguments come
from `pytest.mark.parametrize`, below the decorator.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import pytest

from tests.ports.cluster import Cluster

Body: TypeAlias = Callable[[Cluster], Awaitable[None]]
"""What a test does to a cluster."""

Run: TypeAlias = Callable[[Body], None]
"""Runs a body on one kind of cluster."""

ONLY_ON_BROKERS = "only_on_brokers"

_PATIENCE_S = 120.0


def on_every_cluster(body: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that runs once for each kind of cluster."""

    def test(run: Run, **case: Any) -> None:
        run(partial(body, **case))

    # Not `functools.wraps`: pytest would see a coroutine function that asks for a cluster.
    test.__name__, test.__qualname__ = body.__name__, body.__qualname__
    test.__module__, test.__doc__ = body.__module__, body.__doc__
    test.__dict__.update(body.__dict__)  # marks
    _, *case = inspect.signature(body).parameters.values()
    run = inspect.Parameter("run", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    test.__signature__ = inspect.Signature([run, *case])  # type: ignore[attr-defined]
    return test


def only_on_brokers(reason: str) -> pytest.MarkDecorator:
    """Marks a test, below `@on_every_cluster`, of something that the model leaves out, and says why it may."""
    mark: pytest.MarkDecorator = getattr(pytest.mark, ONLY_ON_BROKERS)
    return mark(reason)


async def in_time(body: Body, cluster: Cluster) -> None:
    """Run the body, and give up when it hangs."""
    async with asyncio.timeout(_PATIENCE_S):
        await body(cluster)
