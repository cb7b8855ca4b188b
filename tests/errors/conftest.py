"""The verdicts on all cases of this folder that were selected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import pytest

from streamlib.testing.plugin import KafkaTargets
from tests.errors.together import Case, Verdicts, play_all


@pytest.fixture(scope="session")
def verdicts(
    request: pytest.FixtureRequest,
    kafka_brokers: KafkaTargets,
    unique_name: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Verdicts:
    """All are played when the first is asked for."""
    return play_all(list(_selected(request.session)), kafka_brokers, unique_name, tmp_path_factory.mktemp("errors"))


def _selected(session: pytest.Session) -> Iterator[Case]:
    for item in session.items:
        if "verdicts" in getattr(item, "fixturenames", ()):
            yield cast(Case, cast(pytest.Function, item).callspec.params["case"])
