"""The ports of the runtime: all it asks of Kafka and of the clock.

Data goes down as arguments, results come up as return values; no port takes a callback.
Failures come up as `KafkaError` with the broker's code; adapters repeat what may be repeated with the same bytes
(moved leaders and coordinators, lost connections of idempotent requests) until their deadline, nobody above them does.
`kafka/` implements the ports on a real cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from streamlib.records import (
    FetchedBatch,
    GroupMetadata,
    OffsetAndMetadata,
    OutRecord,
    TaskId,
    TopicPartition,
)
from streamlib.state.backend import Backend
from streamlib.topology.nodes import StoreSpec


class Clock(Protocol):
    """The only source of time."""

    def now_ms(self) -> int:
        """Wall clock, ms since the epoch."""
        ...

    def monotonic_ms(self) -> float:
        """A clock that never goes back, in ms, for intervals and deadlines."""
        ...


class Subscription(msgspec.Struct, frozen=True):
    """What a member says of itself when it joins: the topics it reads, what it still owns, and its own data.

    `generation` is that in which it came to own them; a claim from an older generation is void (KIP-792).
    """

    topics: tuple[str, ...]
    owned: tuple[TopicPartition, ...] = ()
    generation: int = -1
    user_data: bytes = b""


class MemberTasks(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one member of the group runs and follows, and where its HTTP server is.

    Args:
        member: its name in the group; empty where the brokers assign, who tell endpoints alone (KIP-1071).
        worker: its worker id; empty if it does not say.
        endpoint: `HOST:PORT` (`application_server`); empty if it has none, or is of a release that knew none.
        active: the tasks that are assigned to it. It may still be restoring them.
        standby: those it has copies of, warm-ups among them.
    """

    member: str = ""
    worker: str = ""
    endpoint: str = ""
    active: tuple[TaskId, ...] = ()
    standby: tuple[TaskId, ...] = ()


class Assignment(msgspec.Struct, frozen=True):
    """What the leader tells a member: the partitions it owns from now on."""

    partitions: tuple[TopicPartition, ...]
    user_data: bytes = b""


class MemberSubscription(msgspec.Struct, frozen=True):
    """One member of the group, as the leader sees it."""

    member_id: str
    instance_id: str | None
    subscription: Subscription


class JoinResult(msgspec.Struct, frozen=True):
    """The outcome of a completed join. `members` is empty unless this member has to assign the partitions.

    A static leader that came back is told to keep the assignment (`leads` is false then, KIP-814).
    `consecutive`: every member has every generation, so one that this member did not see means that it was thrown out.
    """

    generation: int
    member_id: str
    leads: bool
    members: tuple[MemberSubscription, ...] = ()
    consecutive: bool = True


class Group(Protocol):
    """One member's conversation with its group coordinator, in the words of the classic protocol. One call at a time,
    except `heartbeat`, `commit_offsets` and `fetch_offsets`, which may run beside a pending `join` or `sync`.

    In a streams group (KIP-1071) the coordinator assigns: a generation is the member's own epoch, nobody leads, `sync`
    returns what was said last.

    Raises `KafkaError` with the broker's code: `UNKNOWN_MEMBER_ID`, `ILLEGAL_GENERATION`, `FENCED_INSTANCE_ID`,
    `REBALANCE_IN_PROGRESS` are the caller's to decide on.
    """

    async def join(self, member_id: str, subscription: Subscription) -> JoinResult:
        """Join or rejoin, and wait until all members have; `member_id=""` for a new member (asks for an id itself)."""
        ...

    async def sync(self, generation: int, member_id: str, assignments: Mapping[str, Assignment]) -> Assignment:
        """Hand in what the leader decided (others hand in nothing) and receive the own assignment."""
        ...

    async def heartbeat(self, generation: int, member_id: str) -> tuple[MemberTasks, ...] | None:
        """Say that the member is alive. Returns who runs what, if the group tells of that with heartbeats, and it has
        changed."""
        ...

    async def leave(self, member_id: str) -> None:
        """Leave at once. A static member keeps its place unless this is called."""
        ...

    async def fetch_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """Committed offsets, once no transaction that would change them is pending (`require_stable`, KIP-447).

        Waits while the broker answers UNSTABLE_OFFSET_COMMIT. Partitions without a commit are left out.
        """
        ...

    async def commit_offsets(self, group: GroupMetadata, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit outside of a transaction (`at_least_once`)."""
        ...

    async def close(self) -> None:
        """Drop the connections; does not leave the group."""
        ...


class Beat(msgspec.Struct, frozen=True):
    """To be said now: that the member is alive. With two generations, the second if the first has just passed."""

    member_id: str
    generations: tuple[int, ...]


class Leave(msgspec.Struct, frozen=True):
    """To be said now: that the member leaves."""

    member_id: str


class LoopWatch(Protocol):
    """Knows whether a worker's event loop turns, and what is to be said to the group if not. For another thread."""

    @property
    def look_every_ms(self) -> float: ...

    def look(self, awake_ms: float) -> Beat | Leave | None:
        """What there is to say; None almost always. `awake_ms`: since the last look, as far as the process ran."""
        ...

    def answered(self) -> None:
        """The group has taken the beat that there was to say."""
        ...


class StandIn(Protocol):
    """Says to the group what the worker's own event loop cannot while a function holds it.

    The one thing that runs in a thread of its own. It asks the watch at intervals, and does what that says.
    """

    def start(self, watch: LoopWatch) -> None:
        """Begin to look."""
        ...

    async def close(self) -> None:
        """End the thread."""
        ...


class Producer(Protocol):
    """An idempotent producer: with a transactional id, transactions; without, plain sends.

    Batches leave in the background as they fill; at most the configured bytes wait (`wait_for_room`).
    After any failure the producer refuses to go on until `init` is called again: a failed batch can never
    be committed around.
    """

    @property
    def transactional_id(self) -> str | None: ...

    @property
    def buffered_bytes(self) -> int:
        """Bytes handed over by `send` and not yet acknowledged."""
        ...

    async def init(self) -> None:
        """Get a producer id and epoch: fences older producers of the same id and finishes their transaction."""
        ...

    def begin(self) -> None:
        """Open a transaction; purely local."""
        ...

    def send(self, partition: TopicPartition, records: Sequence[OutRecord]) -> None:
        """Append records to a partition; they leave in this order. Raises at once what an earlier batch failed with."""
        ...

    async def wait_for_room(self) -> None:
        """Return when `buffered_bytes` is below the bound."""
        ...

    async def flush(self) -> dict[TopicPartition, int]:
        """Wait until everything sent is acknowledged.

        Returns, for each partition written since `begin` (without transactions: since the last `flush`), the offset
        after its last record. Raises the first failure.
        """
        ...

    async def add_offsets(self, group: GroupMetadata, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Make the offsets part of the transaction (TxnOffsetCommit with live group metadata, KIP-447)."""
        ...

    async def end(self, *, commit: bool) -> None:
        """End the transaction; asks again with the same epoch if the outcome is unknown. An empty one costs nothing."""
        ...

    async def close(self) -> None:
        """Drop what is buffered and the connections; does not end an open transaction."""
        ...


class Fetcher(Protocol):
    """Reads partitions incrementally: adding or removing one does not disturb the others.

    Reads only committed records. Buffers at most the configured bytes per partition; `take` makes room.
    """

    def add(self, positions: Mapping[TopicPartition, int]) -> None:
        """Start reading each partition at its offset."""
        ...

    def remove(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop reading; what is buffered of them is dropped, nothing of them comes out of `take` any more."""
        ...

    async def wait(self) -> None:
        """Return when `take` would give something, or raise what went wrong for good.

        OFFSET_OUT_OF_RANGE is raised as a `KafkaError` whose `where` names the partition.
        """
        ...

    @property
    def ready(self) -> bool:
        """Whether `take` would give something."""
        ...

    def take(self, max_bytes: int) -> list[FetchedBatch]:
        """Buffered batches, in offset order per partition, fair over partitions, about `max_bytes` at most."""
        ...

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Hold exactly these back from now on; all others flow.

        They keep their buffer and come out of neither `wait` nor `take`. For partitions whose task has enough.
        """
        ...

    def end_offsets(self) -> dict[TopicPartition, int]:
        """The last stable offset of each partition as last heard from its leader: what is left to read ends there."""
        ...

    def unstable(self) -> dict[TopicPartition, int]:
        """How many records are behind it as last heard: of transactions that are open, or after them; 0 is left out."""
        ...

    async def close(self) -> None: ...


class StateDirectory(Protocol):
    """Where the tasks of this host keep their stores."""

    @property
    def identity(self) -> str:
        """What this worker is called in its transactional ids; the same after a restart."""
        ...

    def open(self, task_id: TaskId, stores: Sequence[StoreSpec], *, aside: bool = False) -> Backend:
        """Open (or create) the task's stores. Raises `LockError` while another process holds them.

        `aside`: open a copy of this worker's own instead, whatever state it is in; for when the holder of the usual
        one does not let go (a stopped process). Correct all the same: a store knows its position in the changelog.
        """
        ...

    def open_global(self, stores: Sequence[StoreSpec]) -> Backend:
        """Open (or create) this worker's global stores."""
        ...

    @property
    def process(self) -> str:
        """The same for all workers that share this directory, and for no others; outlives them."""
        ...

    def stored_positions(self) -> Mapping[TaskId, Mapping[str, int]]:
        """For each task with stores on this disk that nobody holds, the position of each store in its changelog.

        A hint for the assignment: what counts is what is found when the stores are opened.
        """
        ...


class TopicSpec(msgspec.Struct, frozen=True):
    """An internal topic that has to exist."""

    name: str
    partitions: int
    config: dict[str, str]


class Admin(Protocol):
    """What the runtime asks of the cluster as such."""

    async def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        """The number of partitions of each topic that exists; topics that do not exist are left out."""
        ...

    async def topics(self) -> dict[str, int]:
        """The number of partitions of every topic that may be seen."""
        ...

    async def ensure_topics(self, topics: Iterable[TopicSpec]) -> None:
        """Create those that are missing.

        Raises `TopologyError` if one exists with another partition count or cleanup policy.
        """
        ...

    async def list_offsets(
        self, partitions: Iterable[TopicPartition], at: Literal["earliest", "latest", "latest_stable"]
    ) -> dict[TopicPartition, int]:
        """Log start, log end (high watermark), or last stable offset of each partition."""
        ...

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Let the broker drop records before the offsets (consumed repartition topics)."""
        ...

    async def close(self) -> None: ...
