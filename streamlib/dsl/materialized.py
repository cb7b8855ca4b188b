"""How the state of a step is kept: what `store=` accepts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TypeAlias

import msgspec

from streamlib.errors import TopologyError
from streamlib.serdes import Serde
from streamlib.topology.nodes import StoreSpec


class Materialized(msgspec.Struct, frozen=True, kw_only=True):
    """A store's name and how it is kept; `store="counts"` is short for `store=Materialized(name="counts")`.

    Attributes:
        name: of the store; its changelog is `<application_id>-<name>-changelog`. Generated if not given.
        persistent: on disk; False keeps it in memory and restores all of it at each start.
        changelog: False keeps no copy in Kafka: the content is lost with the disk.
        changelog_config: further settings of the changelog topic.
        retention: of windows and sessions, how long rows can be seen; at least the window's size and grace.
        history_retention: keeps versions of each row this long, so that joins find the row of the time they ask for.

    >>> Materialized(name="counts", persistent=False).name
    'counts'
    """

    name: str | None = None
    persistent: bool = True
    changelog: bool = True
    changelog_config: Mapping[str, str] = {}
    retention: timedelta | None = None
    history_retention: timedelta | None = None

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

    def table_spec(self, name: str, key: Serde[object], value: Serde[object]) -> StoreSpec:
        """The store of a table: values with their times."""
        return StoreSpec(
            name=name,
            kind="timestamped_key_value",
            key=key,
            value=value,
            persistent=self.persistent,
            changelog=self.changelog,
            changelog_config=dict(self.changelog_config),
        )


StoreOption: TypeAlias = str | Materialized | None
"""What `store=` accepts: a name, how to keep it, or nothing."""
