"""One verification, from the connection to the report."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.lowlevel
import msgspec

from streamlib.cli.screens import Step
from streamlib.cli.verify.asking import find_open
from streamlib.cli.verify.moment import Moment, quiet_moment
from streamlib.cli.verify.reading import Reader
from streamlib.cli.verify.subject import Subject
from streamlib.config import StreamsConfig
from streamlib.kafka.connection import Connection
from streamlib.topology.topology import Topology
from streamlib.verify.doubts import Doubts
from streamlib.verify.effects import without_effects
from streamlib.verify.history import History
from streamlib.verify.judging import Judge
from streamlib.verify.replay import TRIALS, Outcome, Replay
from streamlib.verify.report import InputReport, Report, TopicReport
from streamlib.verify.shapes import shapes

_PATIENCE_S = 20.0
"""Beyond its timeout, a transaction may stay open for 10 s, by default: so often coordinators look."""


class Job(msgspec.Struct, frozen=True):
    """Verifies one application.

    Attributes:
        topology: what it runs.
        config: how it runs.
        from_beginning: whether it has begun where the logs of its inputs begin now.
        examples: how many wrong records are told of each topic.
        step: is told of the progress.
    """

    topology: Topology
    config: StreamsConfig
    from_beginning: bool
    examples: int
    step: Step

    async def run(self) -> Report:
        """Read all there is, replay it and compare.

        Raises:
            ConnectionFailedError: no broker answers.
            TopologyError: a topic is missing.
            UsageError: the application has never run there.
        """
        connection = await Connection.open(self.config)
        try:
            subject = await Subject.of(without_effects(self.topology), self.config, connection.admin())
            return await self._verify(connection, subject)
        finally:
            with anyio.CancelScope(shield=True):
                await connection.close()

    async def _verify(self, connection: Connection, subject: Subject) -> Report:
        name = self.config.application_id
        asked = connection.transactions(), connection.admin()
        transactions, notes = await find_open(*asked, name, subject.own)
        patience_s = self.config.transaction_timeout_ms / 1000 + _PATIENCE_S
        moment = await quiet_moment(connection, name, subject.read, subject.partitions, patience_s)
        report = Report(name, (), (), tuple(transactions), notes=(*subject.notes, *notes))
        if moment is None:
            reason = (
                f"for {patience_s:.0f} s there was no moment to look at: a transaction over the committed offsets is "
                "open, or the application commits all the time; stop it, and verify again"
            )
            return msgspec.structs.replace(report, reasons=(reason,))
        reader = Reader(connection, subject, moment, self.step)
        return msgspec.structs.replace(
            report,
            inputs=_inputs(subject, moment, reader),
            topics=tuple(await self._compare(subject, reader)) if moment.committed else (),
            reasons=_reasons(subject, moment),
        )

    async def _compare(self, subject: Subject, reader: Reader) -> list[TopicReport]:
        shapes_of = shapes(subject.plan, self.config, subject.append_time)
        history = await reader.history()
        replay = Replay(subject.plan, self.config, history, shapes_of)
        outcomes = [await self._replayed(replay, number) for number in range(len(TRIALS))]
        written = await reader.written(subject.outputs(outcomes), shapes_of)
        judge = Judge(subject.plan, outcomes, self._doubts(subject, history, outcomes), written, self.examples)
        return judge.topics()

    async def _replayed(self, replay: Replay, number: int) -> Outcome:
        """Bit by bit, so that the connections stay alive meanwhile, and Ctrl-C is heard."""
        advance = self.step(f"replaying, {number + 1} of {len(TRIALS)}", 0)
        steps = replay.steps(TRIALS[number])
        while True:
            try:
                advance(next(steps))
            except StopIteration as done:
                outcome: Outcome = done.value
                return outcome
            await anyio.lowlevel.checkpoint()

    def _doubts(self, subject: Subject, history: History, outcomes: Sequence[Outcome]) -> Doubts:
        cached = self.config.statestore_cache_max_bytes > 0
        return Doubts(subject.plan, history, outcomes, from_beginning=self.from_beginning, cached=cached)


def _inputs(subject: Subject, moment: Moment, reader: Reader) -> tuple[InputReport, ...]:
    return tuple(
        InputReport(*partition, moment.starts[partition], processed, moment.ends[partition] - processed)
        for partition in sorted(subject.read)
        for processed in [reader.processed(partition)]
    )


def _reasons(subject: Subject, moment: Moment) -> tuple[str, ...]:
    """Why nothing can be told at all."""
    if not moment.committed:
        name = subject.config.application_id
        return (f"group {name} has committed no offsets: has the application run here, under this name?",)
    return tuple(
        f"the group has committed offset {committed} of {partition}, which ends at {moment.high[partition]}: "
        "was the topic deleted and made anew?"
        for partition, committed in sorted(moment.committed.items())
        if committed > moment.high[partition]
    )
