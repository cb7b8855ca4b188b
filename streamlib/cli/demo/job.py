"""One run of the demo: topics, workers, lines, a crash on the way, and the wait for the last line."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import anyio.to_thread
import msgspec

from streamlib.cli.client import opened, paced, read_committed, settled, text_record
from streamlib.cli.demo.lines import text_lines
from streamlib.cli.demo.verdict import Verdict, judge
from streamlib.cli.run import worker_commands
from streamlib.cli.settings import GivenSettings, load_settings
from streamlib.cli.supervisor import Phase, Supervisor
from streamlib.cli.view import Sum
from streamlib.config import StreamsConfig
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import partitions_of

PARTITIONS = 4
_TASKS = 2 * PARTITIONS  # lines -> words, and words -> counts
_REPARTITION_TOPIC = "{}-counts-repartition"
_CHANGELOG_TOPIC = "{}-counts-changelog"


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is run; `name` keeps one demo's topics and group apart from those of any other.

    `file` and `others` are further settings, of a cluster that asks who we are for example.
    """

    name: str
    bootstrap_servers: str
    state_dir: Path
    lines: int
    rate: int
    workers: int
    kill: bool
    file: Path | None = None
    others: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        return f"{self.name}-"

    @property
    def topics(self) -> tuple[str, str]:
        """Where the lines are, and where the counts come."""
        return f"{self.prefix}lines", f"{self.prefix}word-counts"

    def commands(self) -> list[list[str]]:
        """The command of each worker."""
        target = "streamlib.cli.demo.word_count:topology"
        return worker_commands(target, self.workers, self._given(self.name), f"{self.name}-worker", "warning")

    def client(self) -> StreamsConfig:
        """How the demo itself connects."""
        return load_settings(self._given(f"{self.name}-client"))

    def _given(self, application_id: str) -> GivenSettings:
        return GivenSettings(
            application_id=application_id,
            bootstrap_servers=self.bootstrap_servers,
            processing_guarantee="exactly_once_v2",
            file=self.file,
            others=[*self.others, f"state_dir={self.state_dir}"],
        )


class Job:
    """The client's side of a run; the workers belong to the supervisor."""

    def __init__(self, options: DemoOptions, supervisor: Supervisor) -> None:
        self._options = options
        self._supervisor = supervisor
        self.lines = list(text_lines(options.lines))
        self.produced = 0
        self.killed = False

    async def run(self) -> Verdict:
        """Everything between the topics' creation and the verdict.

        Raises:
            WorkerFailedError: a worker met an error that no restart mends.
            StalledError: the workers stopped making progress.
        """
        async with opened(self._options.client()) as connection:
            for topic in self._options.topics:
                await connection.admin().create_topic(topic, PARTITIONS)
            self._supervisor.start()
            await self._produce(connection)
            await settled(self._progress)
            await self._stop_workers()
            return judge(self.lines, await self._read_counts(connection))

    def headline(self) -> str:
        """For the live view."""
        return f"lines {self.produced:,}/{len(self.lines):,}"

    async def _produce(self, connection: Connection) -> None:
        producer = connection.producer(None)
        await producer.init()
        partitions = partitions_of(self._options.topics[0], PARTITIONS)
        async for numbers in paced(self._options.rate, len(self.lines)):
            for number in numbers:
                producer.send(partitions[number % PARTITIONS], [text_record(None, self.lines[number].encode())])
            self.produced = numbers.stop
            self._kill_midway()
            self._raise_failure()
            await producer.wait_for_room()
        await producer.flush()
        await producer.close()

    def _kill_midway(self) -> None:
        """End a worker as the out-of-memory killer would, once it is in the middle of its work."""
        if not self._options.kill or self.killed or self.produced < len(self.lines) // 2:
            return
        victim = self._supervisor.views[0]
        if victim.phase is Phase.RUNNING and victim.totals.records_in > 0:
            self._supervisor.kill(victim.index)
            self.killed = True

    def _raise_failure(self) -> None:
        if self._supervisor.failure is not None:
            raise self._supervisor.failure

    def _progress(self) -> tuple[bool, int]:
        self._raise_failure()
        self._kill_midway()
        views = self._supervisor.views
        total = Sum.of(views)
        all_running = all(view.report is not None and view.report.running for view in views)
        crashed = self.killed or not self._options.kill
        # A worker that has just begun knows of no lag yet. Every line counts at least once, and each word of it does.
        begun = total.records_in >= len(self.lines)
        return all_running and crashed and begun and total.tasks == _TASKS and total.lag == 0, total.records_in

    async def _stop_workers(self) -> None:
        self._supervisor.stop()
        await anyio.to_thread.run_sync(self._supervisor.wait, abandon_on_cancel=True)
        self._raise_failure()

    async def _read_counts(self, connection: Connection) -> dict[str, list[int]]:
        """For each word, the counts in the order they were written; a word's counts are all in one partition."""
        seen: dict[str, list[int]] = defaultdict(list)
        async for record in read_committed(connection, partitions_of(self._options.topics[1], PARTITIONS)):
            seen[(record.key or b"").decode()].append(int.from_bytes(record.value or b"", "big", signed=True))
        return seen


async def remove_traces(options: DemoOptions) -> None:
    """Delete what a demo left on a cluster that is not its own."""
    async with opened(options.client()) as connection:
        admin = connection.admin()
        internal = (_REPARTITION_TOPIC.format(options.name), _CHANGELOG_TOPIC.format(options.name))
        await admin.delete_topics([*options.topics, *internal])
        # The group goes by itself: static members are in it until their session ends.
