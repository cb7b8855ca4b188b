"""How the state of a step is kept: what `store=` accepts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TypeAlias

import msgspec

from streamlib.errors import TopologyError
from streamlib.serdes import Serde
from streamlib.topology.nodes import LruStoreSpec, StoreSpec, TtlStoreSpec, VersionedStoreSpec
from streamlib.windows import END_OF_TIME_MS, duration_ms


class Materialized(msgspec.Struct, frozen=True, kw_only=True):
    """A store's name and how it is kept; `store="counts"` is short for `store=Materialized(name="counts")`.

    Attributes:
        name: of the store; its changelog is `<application_id>-<name>-changelog`. Generated if not given.
        persistent: on disk; False keeps it in memory and restores all of it at each start.
        changelog: False keeps no copy in Kafka: the content is lost with the disk.
        changelog_config: further settings of the changelog topic.
        cached: False passes each update on at once, even if the application has a record cache
            (`statestore_cache_max_bytes`).
        retention: of windows and sessions, how long rows can be seen; at least the window's size and grace.
        max_entries: keeps only so many rows, in memory: those that were read or written last.
        history_retention: keeps versions of each row this long, so that joins find the row of the time they ask for.
        ttl: a row is gone when the task's stream time is this much past the row's own time: nobody sees it any more,
            and it is deleted like by a tombstone, before the next change of its key goes on, or else by and by.

    >>> Materialized(name="counts", persistent=False).name
    'counts'
    """

    name: str | None = None
    persistent: bool = True
    changelog: bool = True
    changelog_config: Mapping[str, str] = {}
    cached: bool = True
    retention: timedelta | None = None
    max_entries: int | None = None
    history_retention: timedelta | None = None
    ttl: timedelta | None = None

    @staticmethod
    def of(store: StoreOption) -> Materialized:
        """What a user gave as `store=`.

        Raises:
            TopologyError: it is something else.
        """
        if isinstance(store, Materialized):
            return store
        if store is not None and not isinstance(store, str):
            raise TopologyError(f"store= is a name or Materialized(...), not {store!r}")
        return Materialized(name=store)

    @property
    def in_any_case(self) -> bool:
        """Whether rows are kept even if nothing looks them up: what they are depends on the store, or it has a name."""
        return self.name is not None or self.history_retention is not None

    def table_spec(self, name: str, key: Serde[object], value: Serde[object]) -> StoreSpec:
        """The store of a table: values with their times.

        Raises:
            TopologyError: an option is for stores of windows.
        """
        if self.retention is not None:
            raise TopologyError(
                f"store {name}: retention= is for windows and sessions; rows of this table stay until they are deleted"
            )
        spec = StoreSpec(
            name=name,
            kind="timestamped_key_value",
            key=key,
            value=value,
            persistent=self.persistent,
            changelog=self.changelog,
            changelog_config=dict(self.changelog_config),
            cached=self.cached,
        )
        if len(self._row_limits) > 1:
            raise TopologyError(f"store {name}: it has {' or '.join(self._row_limits)}, not several of them")
        if self.history_retention is not None:
            return versioned(spec, self.history_retention)
        if self.ttl is not None:
            return expiring(spec, self.ttl)
        if self.max_entries is not None:
            return latest_used(spec, self.max_entries)
        return spec

    def retention_ms(self, store: str, least_ms: int) -> int:
        """How long a store of windows or sessions keeps its rows.

        Args:
            store: its name.
            least_ms: what it takes until a window is closed, which is also how long rows are kept if nothing is said.

        Raises:
            TopologyError: it would forget windows that are still open, or an option is for other stores.
        """
        if self._row_limits:
            raise TopologyError(
                f"store {store}: {' and '.join(self._row_limits)} are for tables without windows; rows of windows are "
                "kept as long as retention= says"
            )
        if self.retention is None:
            return min(least_ms, END_OF_TIME_MS)
        retention_ms = duration_ms(self.retention, f"the retention of store {store}")
        if retention_ms < least_ms:
            raise TopologyError(
                f"store {store}: a retention of {retention_ms} ms is too short, its windows are open for up to "
                f"{least_ms} ms, grace included: make retention= at least as long"
            )
        return retention_ms

    @property
    def _row_limits(self) -> list[str]:
        """What is said about rows of tables without windows."""
        said = {"max_entries=": self.max_entries, "history_retention=": self.history_retention, "ttl=": self.ttl}
        return [option for option, value in said.items() if value is not None]


def latest_used(spec: StoreSpec, max_entries: object) -> LruStoreSpec:
    """The same store in memory, with so many rows at most.

    Raises:
        TopologyError: it is no number, or less than one.
    """
    if not isinstance(max_entries, int) or isinstance(max_entries, bool) or max_entries < 1:
        raise TopologyError(f"store {spec.name}: max_entries is a number from 1 on, not {max_entries!r}")
    fields = {**msgspec.structs.asdict(spec), "persistent": False}
    return LruStoreSpec(**fields, max_entries=max_entries)


def expiring(spec: StoreSpec, ttl: timedelta) -> TtlStoreSpec:
    """The same store with rows that expire.

    Raises:
        TopologyError: the time to live is not more than zero, or no timedelta.
    """
    ttl_ms = duration_ms(ttl, f"store {spec.name}: ttl", positive=True)
    return TtlStoreSpec(**msgspec.structs.asdict(spec), ttl_ms=ttl_ms)


def versioned(spec: StoreSpec, history_retention: timedelta) -> VersionedStoreSpec:
    """The same store with a history. It has no record cache: each version counts.

    Raises:
        TopologyError: the history is negative or no timedelta.
    """
    history_ms = duration_ms(history_retention, f"store {spec.name}: history_retention")
    fields = {**msgspec.structs.asdict(spec), "kind": "versioned", "cached": False}
    return VersionedStoreSpec(**fields, history_retention_ms=history_ms)


StoreOption: TypeAlias = str | Materialized | None
"""What `store=` accepts: a name, how to keep it, or nothing."""
