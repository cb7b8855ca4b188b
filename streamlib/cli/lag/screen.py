"""Where an application stands, on a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from streamlib.cli.lag.standing import PartitionStanding, Standing


def standing_view(standing: Standing) -> Group:
    """A line for each partition, then one for all."""
    table = Table()
    for heading in ("topic", "partition", "committed", "end", "lag"):
        table.add_column(heading, justify="left" if heading == "topic" else "right", overflow="fold")
    table.add_column("member", overflow="fold")
    for each in standing.partitions:
        table.add_row(*_cells(each))
    return Group(table, Text(summary(standing)))


def summary(standing: Standing) -> str:
    """`application shop: Stable, 2 members; lag 1,204 in 4 partitions`."""
    members = f"{standing.members} member{'' if standing.members == 1 else 's'}"
    new = sum(each.committed is None for each in standing.partitions)
    without = f", {new} of them without a committed offset" if new else ""
    return (
        f"application {standing.application_id}: {standing.state}, {members}; "
        f"lag {standing.total_lag:,} in {len(standing.partitions)} partitions{without}"
    )


def _cells(each: PartitionStanding) -> tuple[str, ...]:
    committed = "none" if each.committed is None else f"{each.committed:,}"
    lag = "" if each.lag is None else f"{each.lag:,}"
    return each.topic, str(each.partition), committed, f"{each.end:,}", lag, str(each.member or "")
