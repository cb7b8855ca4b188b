"""A global store that cannot be read for a while is read on afterwards, and nobody else has to begin anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from streamlib.errors import ErrorCode
from tests.errors.application import Running, Site, until
from tests.errors.injection import Faults, refused
from tests.errors.together import Case, Verdicts, cases, cases_of
from tests.exactly_once.topologies import by_rules


async def goes_on_after(ground: Site, code: ErrorCode) -> None:
    faults = Faults()
    worker = await _following_rules(ground, faults)
    fault = faults.add("Fetch", refused(code), times=3, when=_reads_rules(ground))
    await ground.bench.produce([("a", "second")], topic=_rules(ground))

    async def follows_the_rule() -> bool:
        await ground.produce([("a", "x")])
        assert await ground.until_all_committed(worker), worker.error
        return (await ground.bench.read(value=str))[-1].value == "x second"

    assert await until(follows_the_rule, worker), worker.error
    assert fault.hits
    assert worker.status.redone == 0
    assert await worker.stop() is None


async def a_refusal_stops_the_worker(ground: Site) -> None:
    faults = Faults()
    worker = await _following_rules(ground, faults)
    faults.add("Fetch", refused(ErrorCode.TOPIC_AUTHORIZATION_FAILED), when=_reads_rules(ground))
    await worker.ended()
    assert worker.refusal.code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    assert _rules(ground) in str(worker.refusal)


async def _following_rules(ground: Site, faults: Faults) -> Running:
    """A worker whose first record has met the first rule."""
    await ground.bench.create_topic(_rules(ground))
    await ground.bench.produce([("a", "first")], topic=_rules(ground))
    worker = ground.start(faults)
    await ground.produce([("a", "x")])
    assert await ground.until_all_committed(worker), worker.error
    assert (await ground.bench.read(value=str))[-1].value == "x first"
    return worker


def _rules(ground: Site) -> str:
    return f"{ground.bench.source}-rules"


def _reads_rules(ground: Site) -> Callable[[Any], bool]:
    return lambda body: any(topic["topic"] == _rules(ground) for topic in body["topics"])


ERRORS = [ErrorCode.UNKNOWN_SERVER_ERROR, ErrorCode.CORRUPT_MESSAGE, ErrorCode.NOT_LEADER_OR_FOLLOWER]
CASES = [
    msgspec.structs.replace(case, topology=by_rules)
    for case in (*cases_of(goes_on_after, *ERRORS), *cases(a_refusal_stops_the_worker))
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_global_store(case: Case, verdicts: Verdicts) -> None:
    verdicts.check(case)
