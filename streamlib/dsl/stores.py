"""State stores for the Processor API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from streamlib.dsl.materialized import expiring, latest_used, versioned
from streamlib.errors import TopologyError
from streamlib.serdes import serde_for
from streamlib.topology.nodes import (
    RetainedStoreSpec,
    SessionStoreSpec,
    StoreSpec,
    VersionedStoreSpec,
    WindowStoreSpec,
)
from streamlib.windows import duration_ms

R = TypeVar("R", bound=RetainedStoreSpec)


class Stores:
    """Makes stores to add with `StreamsBuilder.add_state_store`."""

    @staticmethod
    def key_value_store(
        name: str,
        *,
        key: Any,
        value: Any,
        persistent: bool = True,
        changelog: bool = True,
        changelog_config: Mapping[str, str] | None = None,
        ttl: timedelta | None = None,
    ) -> StoreSpec:
        """A store of values by key.

        Args:
            name: what processors call it; the changelog is `<application_id>-<name>-changelog`.
            key: the keys' type.
            value: the values' type.
            persistent: on disk; False keeps it in memory and restores all of it at each start.
            changelog: False keeps no copy in Kafka: the content is lost with the disk.
            changelog_config: further settings of the changelog topic.
            ttl: a row is gone when the task's stream time is this much past the time of the record that wrote it. Give
                the store another name when you begin or cease to use it: rows on disk look different.

        Raises:
            TopologyError: `ttl` is not more than zero, or no timedelta.

        >>> Stores.key_value_store("seen", key=str, value=int).changelog_topic
        'seen-changelog'
        """
        spec = _spec("key_value", name, key, value, persistent, changelog, changelog_config)
        return spec if ttl is None else expiring(spec, ttl)

    @staticmethod
    def timestamped_key_value_store(
        name: str,
        *,
        key: Any,
        value: Any,
        persistent: bool = True,
        changelog: bool = True,
        changelog_config: Mapping[str, str] | None = None,
        ttl: timedelta | None = None,
    ) -> StoreSpec:
        """A store that keeps a timestamp with each value, as tables do. The arguments are those of `key_value_store`.

        With `ttl` a row is gone when stream time is that much past its own timestamp.

        >>> Stores.timestamped_key_value_store("latest", key=str, value=int).kind
        'timestamped_key_value'
        """
        spec = _spec("timestamped_key_value", name, key, value, persistent, changelog, changelog_config)
        return spec if ttl is None else expiring(spec, ttl)

    @staticmethod
    def lru_map(
        name: str,
        *,
        key: Any,
        value: Any,
        max_entries: int,
        changelog: bool = True,
        changelog_config: Mapping[str, str] | None = None,
    ) -> StoreSpec:
        """A store of values by key in memory, which drops the one that was not read or written for longest.

        Args:
            name: what processors call it.
            key: the keys' type.
            value: the values' type.
            max_entries: how many it keeps.
            changelog: False keeps no copy in Kafka: the content is lost when the application stops.
            changelog_config: further settings of the changelog topic.

        Raises:
            TopologyError: it is to keep none.

        >>> Stores.lru_map("latest", key=str, value=int, max_entries=1000).persistent
        False
        """
        spec = _spec("key_value", name, key, value, False, changelog, changelog_config)
        return latest_used(spec, max_entries)

    @staticmethod
    def versioned_key_value_store(
        name: str,
        *,
        key: Any,
        value: Any,
        history_retention: timedelta,
        persistent: bool = True,
        changelog: bool = True,
        changelog_config: Mapping[str, str] | None = None,
    ) -> VersionedStoreSpec:
        """A store of values by key that can be asked for what was. The other arguments are those of `key_value_store`.

        Args:
            history_retention: how far back it can be asked, and written, counted from the latest time that was put. The
                newest value of a key stays, however old it is.

        Raises:
            TopologyError: the history is negative or no timedelta.

        >>> from datetime import timedelta as td
        >>> prices = Stores.versioned_key_value_store("prices", key=str, value=float, history_retention=td(hours=1))
        >>> prices.topic_config["min.compaction.lag.ms"]
        '90000000'
        """
        spec = _spec("versioned", name, key, value, persistent, changelog, changelog_config)
        return versioned(spec, history_retention)

    @staticmethod
    def window_store(
        name: str,
        *,
        key: Any,
        value: Any,
        retention: timedelta,
        window_size: timedelta,
        retain_duplicates: bool = False,
        persistent: bool = True,
        changelog: bool = True,
        changelog_config: Mapping[str, str] | None = None,
    ) -> WindowStoreSpec:
        """A store of values by key and the time a window starts. The other arguments are those of `key_value_store`.

        Args:
            retention: how long rows can be seen, counted back from the latest start that was put.
            window_size: how long the windows are that rows are read under; no longer than the retention.
            retain_duplicates: each put adds a row, even for a key and time there is one for; None then deletes nothing.

        Raises:
            TopologyError: a duration is negative or no timedelta, or the retention shorter than a window.

        >>> from datetime import timedelta as td
        >>> sizes = {"retention": td(hours=1), "window_size": td(minutes=5)}
        >>> Stores.window_store("seen", key=str, value=int, **sizes).retention_ms
        3600000
        """
        spec = _spec("window", name, key, value, persistent, changelog, changelog_config)
        return _windowed(spec, retention, window_size, retain_duplicates)

    @staticmethod
    def timestamped_window_store(
        name: str,
        *,
        key: Any,
        value: Any,
        retention: timedelta,
        window_size: timedelta,
        persistent: bool = True,
        changelog: bool = True,
        changelog_config: Mapping[str, str] | None = None,
    ) -> WindowStoreSpec:
        """A store of windows that keeps a timestamp with each value, as windowed tables do.

        The arguments are those of `window_store` and `key_value_store`.

        >>> from datetime import timedelta as td
        >>> sizes = {"retention": td(hours=1), "window_size": td(minutes=5)}
        >>> Stores.timestamped_window_store("sums", key=str, value=int, **sizes).kind
        'timestamped_window'
        """
        spec = _spec("timestamped_window", name, key, value, persistent, changelog, changelog_config)
        return _windowed(spec, retention, window_size, False)

    @staticmethod
    def session_store(
        name: str,
        *,
        key: Any,
        value: Any,
        retention: timedelta,
        persistent: bool = True,
        changelog: bool = True,
        changelog_config: Mapping[str, str] | None = None,
    ) -> SessionStoreSpec:
        """A store of values by key and session. The other arguments are those of `key_value_store`.

        Args:
            retention: how long sessions can be seen, counted back from the latest end that was put.

        Raises:
            TopologyError: the retention is not more than zero, or no timedelta.

        >>> from datetime import timedelta as td
        >>> Stores.session_store("visits", key=str, value=int, retention=td(days=1)).changelog_topic
        'visits-changelog'
        """
        spec = _spec("session", name, key, value, persistent, changelog, changelog_config)
        return _retained(SessionStoreSpec, spec, retention)


def _spec(
    kind: Any,
    name: str,
    key: Any,
    value: Any,
    persistent: bool,
    changelog: bool,
    changelog_config: Mapping[str, str] | None,
) -> StoreSpec:
    return StoreSpec(
        name=name,
        kind=kind,
        key=serde_for(key),
        value=serde_for(value),
        persistent=persistent,
        changelog=changelog,
        changelog_config=dict(changelog_config or {}),
    )


def _windowed(
    spec: StoreSpec, retention: timedelta, window_size: timedelta, retain_duplicates: bool
) -> WindowStoreSpec:
    size_ms = duration_ms(window_size, f"store {spec.name}: the size of its windows")
    windowed = _retained(
        WindowStoreSpec, spec, retention, window_size_ms=size_ms, retain_duplicates=bool(retain_duplicates)
    )
    if windowed.retention_ms < size_ms:
        raise TopologyError(
            f"store {spec.name}: a retention of {retention} would drop rows before their window of {window_size} ends: "
            "make it at least as long"
        )
    return windowed


def _retained(kind: type[R], spec: StoreSpec, retention: timedelta, **more: Any) -> R:
    retention_ms = duration_ms(retention, f"store {spec.name}: the retention", positive=True)
    return kind(**msgspec.structs.asdict(spec), retention_ms=retention_ms, **more)
