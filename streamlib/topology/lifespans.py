"""What user functions need around them, such as a client: opened before the first record, closed after the last."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

from streamlib.errors import LifespanError, TopologyError

log = logging.getLogger(__name__)

Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]
"""Makes what is opened and closed; a function with `@asynccontextmanager`, mostly."""


def check_lifespan(lifespan: object) -> None:
    """See that it can be opened, as far as one can see it before.

    Raises:
        TopologyError: it cannot.
    """
    what = "add_lifespan needs a function that makes an asynchronous context manager, such as one with"
    if not callable(lifespan) or isinstance(lifespan, AbstractAsyncContextManager):
        raise TopologyError(f"{what} @asynccontextmanager, not {lifespan!r}")
    if inspect.iscoroutinefunction(lifespan) or inspect.isasyncgenfunction(lifespan):
        raise TopologyError(f"{what} @asynccontextmanager; {_name(lifespan)} lacks that")


@asynccontextmanager
async def opened(lifespans: Iterable[Lifespan]) -> AsyncIterator[None]:
    """All of them, in this order; they are closed the other way round, whatever has happened.

    None of them is told what has happened. One that fails to close is an error in the log: all records are done.

    Raises:
        LifespanError: one could not be opened.
    """
    async with AsyncExitStack() as stack:
        for lifespan in lifespans:
            try:
                manager = lifespan()
                await manager.__aenter__()
            except Exception as error:
                raise LifespanError(_name(lifespan), error) from error
            stack.push_async_callback(_close, _name(lifespan), manager)
        yield


async def _close(name: str, manager: AbstractAsyncContextManager[Any]) -> None:
    try:
        await manager.__aexit__(None, None, None)
    except Exception:
        log.exception("lifespan %s could not be closed", name)


def _name(lifespan: object) -> str:
    return getattr(lifespan, "__qualname__", None) or repr(lifespan)
