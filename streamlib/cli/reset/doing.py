"""Does what a reset is about to do. Whatever breaks it off, it may be done again from the start."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import anyio

from streamlib.cli.errors import UsageError
from streamlib.cli.reset.plan import ResetPlan, check_stopped
from streamlib.file_lock import FileLock
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import StalledError
from streamlib.records import GroupMetadata, OffsetAndMetadata

_PATIENCE_S = 30.0


async def reset_in_cluster(connection: Connection, plan: ResetPlan) -> None:
    """Set the offsets and delete the topics; returns when they are gone.

    Raises:
        StillRunningError: a worker has come since the plan was made.
        StalledError: the brokers took too long to delete.
    """
    admin, group = connection.admin(), connection.group()
    name = plan.application_id
    check_stopped((await admin.describe_groups([name]))[name])
    if plan.offsets:
        # Returns once no transaction is left that could commit others.
        await group.fetch_offsets(plan.offsets)
        offsets = {partition: OffsetAndMetadata(offset) for partition, offset in plan.offsets.items()}
        await group.commit_offsets(GroupMetadata(name, -1, "", None), offsets)
    if plan.topics:
        await admin.delete_topics(plan.topics)
        await _until_gone(admin, plan)


async def _until_gone(admin: KafkaAdmin, plan: ResetPlan) -> None:
    """Brokers delete a topic, and the offsets that were committed of it, a moment after they said that they did.

    An application that starts in between would go on with what is left of them.
    """
    doomed = frozenset(plan.topics)
    with anyio.move_on_after(_PATIENCE_S):
        while True:
            committed = await admin.committed_offsets(plan.application_id)
            left = doomed.intersection({*await admin.topics(), *(partition.topic for partition in committed)})
            if not left:
                return
            await anyio.sleep(0.1)
    raise StalledError(
        f"the brokers have not deleted {', '.join(sorted(doomed))} within {_PATIENCE_S:.0f} s: reset again"
    )


def delete_local_state(folder: Path) -> bool:
    """Delete the folder of an application; returns whether there was one.

    Raises:
        LockError: a process of this host uses it.
        UsageError: it cannot be deleted.
    """
    if not folder.is_dir():
        return False
    try:
        with ExitStack() as held:
            for lock in sorted(folder.glob("*.lock")):
                held.callback(FileLock.take(lock).release, used=False)
            shutil.rmtree(folder)
    except OSError as error:
        raise UsageError(f"cannot delete {folder}: {error.strerror}; delete it by hand") from error
    return True
