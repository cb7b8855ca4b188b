"""State stores for the Processor API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamlib.serdes import serde_for
from streamlib.topology.nodes import StoreSpec


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
    ) -> StoreSpec:
        """A store of values by key.

        Args:
            name: what processors call it; the changelog is `<application_id>-<name>-changelog`.
            key: the keys' type.
            value: the values' type.
            persistent: on disk; False keeps it in memory and restores all of it at each start.
            changelog: False keeps no copy in Kafka: the content is lost with the disk.
            changelog_config: further settings of the changelog topic.

        >>> Stores.key_value_store("seen", key=str, value=int).changelog_topic
        'seen-changelog'
        """
        return _spec("key_value", name, key, value, persistent, changelog, changelog_config)

    @staticmethod
    def timestamped_key_value_store(
        name: str,
        *,
        key: Any,
        value: Any,
        persistent: bool = True,
        changelog: bool = True,
        changelog_config: Mapping[str, str] | None = None,
    ) -> StoreSpec:
        """A store that keeps a timestamp with each value, as tables do. The arguments are those of `key_value_store`.

        >>> Stores.timestamped_key_value_store("latest", key=str, value=int).kind
        'timestamped_key_value'
        """
        return _spec("timestamped_key_value", name, key, value, persistent, changelog, changelog_config)


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
