"""Commits: waited for, or beside the loop, so that the next records are processed while one is under way."""

from __future__ import annotations

from collections.abc import Iterable

import anyio
import anyio.abc
import anyio.lowlevel

from streamlib.engine.task import Task
from streamlib.runtime.purge import Purger
from streamlib.runtime.transaction import Committer, Work, seal
from streamlib.runtime.wakeup import Wakeup


class Commits:
    """At most one commit at a time. How it ended is told to who asks with `end`, and before that nobody else commits.

    Args:
        wakeup: set when one has ended.
    """

    def __init__(self, committer: Committer, purger: Purger, wakeup: Wakeup) -> None:
        self._committer = committer
        self._purger = purger
        self._wakeup = wakeup
        self._ended: anyio.Event | None = None
        self._failure: Exception | None = None

    @property
    def under_way(self) -> bool:
        """Whether one was begun, and nobody has asked for its end yet."""
        return self._ended is not None

    @property
    def ended(self) -> bool:
        """Whether `end` would return at once."""
        return self._ended is not None and self._ended.is_set()

    async def make(self, tasks: Iterable[Task]) -> None:
        """Commit all that the tasks have done so far, and wait for it.

        Raises:
            StreamsError: as `end`.
        """
        assert self._ended is None, "one commit at a time"
        await self._commit(seal(tasks))

    async def begin(self, tasks: Iterable[Task], beside: anyio.abc.TaskGroup) -> None:
        """Commit all that the tasks have done so far; returns when its first requests have left."""
        assert self._ended is None, "one commit at a time"
        self._ended = anyio.Event()
        beside.start_soon(self._run, seal(tasks), self._ended)
        await anyio.lowlevel.checkpoint()

    async def end(self) -> bool:
        """Wait for the end of the one under way; False if there is none.

        Raises:
            StreamsError: it has failed, or it is not known whether it has. Its tasks have to be rolled back.
        """
        if self._ended is None:
            return False
        await self._ended.wait()
        self._ended = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return True

    async def _commit(self, work: Work) -> None:
        await self._committer.commit(work)
        self._purger.committed(work.low_water_marks)

    async def _run(self, work: Work, ended: anyio.Event) -> None:
        try:
            await self._commit(work)
        except Exception as error:  # a defect, too, is to be raised where errors are expected
            self._failure = error
        finally:
            ended.set()
            self._wakeup.set()
