"""Global stores: all of some topics, whole in every worker.

    batches of committed records --apply--> nodes --> overlays --written at once, with the positions--> backend

There is no transaction around them: what a global store holds is what its topic holds. Tasks read them between two of
their records, never while one changes them, and cannot write them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamlib.engine.compile import Compiler
from streamlib.engine.context import OpenProcessor, TaskFacts
from streamlib.engine.cursor import Cursor
from streamlib.engine.error_handling import ErrorHandling
from streamlib.engine.inputs import ENDLESS, Input
from streamlib.engine.operators.site import OpenStore, Work
from streamlib.engine.outbox import Outbox
from streamlib.engine.plan import Plan
from streamlib.errors import StreamsError
from streamlib.policies import ErrorPolicies
from streamlib.records import FetchedBatch, OffsetAndMetadata, TaskId, TopicPartition
from streamlib.state.backend import Backend
from streamlib.state.overlay import Overlay, ReadOnlyOverlay
from streamlib.state.stores import open_rows
from streamlib.topology.nodes import ProcessorNode, SourceNode, StoreSpec

GLOBAL_TASK = TaskId(-1, -1)
"""What a processor of a global store is told when it asks for its task."""

NO_BOUND = 1 << 63


class GlobalState:
    """The global stores of one worker. `stores` are for its tasks to read, and refuse writes.

    Args:
        plan: the application's plan.
        backend: the bytes of the stores; closed with them.
        now_ms: the wall clock.
        policies: what becomes of records that fail; dead letters are only skipped, for there is no transaction here.
    """

    def __init__(
        self, plan: Plan, backend: Backend, *, now_ms: Callable[[], int], policies: ErrorPolicies | None = None
    ) -> None:
        self.partitions = plan.global_inputs
        self.stores = {spec.name: _open(spec, ReadOnlyOverlay(spec.name, backend)) for spec in plan.global_stores}
        self._writable = {spec.name: _open(spec, Overlay(spec.name, backend)) for spec in plan.global_stores}
        self._store_of = _stores_of_topics(plan)
        self._plan = plan
        self.backend = backend
        self._now_ms = now_ms
        self._policies = policies or ErrorPolicies()
        self._cursor = Cursor()
        self._processors: list[OpenProcessor] = []
        self._inputs: dict[TopicPartition, Input] = {}
        self._started = False

    def positions(self) -> dict[TopicPartition, int]:
        """Up to where, exclusive, each partition is in the stores; 0 where nothing is."""
        stored = self.backend.positions()
        return {partition: stored.get(self._position_name(partition), 0) for partition in self.partitions}

    def clear(self) -> None:
        """Forget all content: a topic no longer has what follows the position."""
        for name in self.stores:
            self.backend.clear(name)
        self.backend.write({}, {self._position_name(partition): 0 for partition in self.partitions})
        self._started = False

    def start(self) -> None:
        """Compile, and initialise the processors.

        Raises:
            ProcessingError: a processor's `init` raised.
        """
        self._close_processors()
        outbox = Outbox({})
        errors = ErrorHandling(
            self._policies,
            self._plan.global_nodes,
            GLOBAL_TASK,
            self._cursor,
            outbox,
            self._now_ms,
            dead_letters=None,
        )
        work = Work(
            self._cursor,
            outbox,
            self._writable,
            _no_tables,
            TaskFacts(self._plan.application_id, GLOBAL_TASK, self._now_ms),
            self._processors,
            {},
        )
        sources = Compiler(self._plan.global_nodes, self._plan.full_name, work, errors).compile()
        self._processors.reverse()
        self._inputs = {
            partition: Input(partition, sources[partition.topic], self._cursor, OffsetAndMetadata(position))
            for partition, position in self.positions().items()
        }
        for processor in self._processors:
            processor.init()
        self._started = True

    def apply(self, batch: FetchedBatch) -> int:
        """Let a batch into the stores; returns how many records it had.

        Raises:
            SerializationError, ProcessingError: a record could not be read or processed; it is not in the stores.
        """
        assert self._started, "global stores are started before records come"
        queue = self._inputs[batch.partition]
        queue.enqueue(batch)
        before = self._cursor.records_in
        try:
            while queue.head_timestamp() is not None:
                queue.run(NO_BOUND, 1 << 30, ENDLESS)
        except StreamsError:
            for store in self._writable.values():
                store.overlay.clear()
            raise
        self._write({self._position_name(batch.partition): queue.position})
        return self._cursor.records_in - before

    def _write(self, positions: Mapping[str, int]) -> None:
        changes = {name: store.overlay.changes for name, store in self._writable.items() if store.overlay.changes}
        self.backend.write(changes, positions)
        for store in self._writable.values():
            store.overlay.clear()

    def close(self) -> None:
        """Close the processors and the stores."""
        try:
            self._close_processors()
        finally:
            self.backend.close()

    def _position_name(self, partition: TopicPartition) -> str:
        return f"{self._store_of[partition.topic]}/{partition.topic}-{partition.partition}"

    def _close_processors(self) -> None:
        while self._processors:
            self._processors.pop(0).close()


def _open(spec: StoreSpec, overlay: Overlay) -> OpenStore:
    return OpenStore(spec, overlay, open_rows(spec, overlay))


def _no_tables(table: str) -> Any:
    raise AssertionError(f"no node of a global store looks {table} up")


def _stores_of_topics(plan: Plan) -> dict[str, str]:
    """Which global store a topic fills."""
    nodes = plan.global_nodes.values()
    topics = {node.name: node.topics for node in nodes if isinstance(node, SourceNode)}
    return {
        topic: node.stores[0]
        for node in nodes
        if isinstance(node, ProcessorNode)
        for parent in node.parents
        for topic in topics[parent]
    }
