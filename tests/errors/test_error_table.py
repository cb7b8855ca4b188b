"""Every row of the table of errors, on a real broker: what the library does about it, and that all is counted once.

By default one row of each kind, with `--all-errors` every error at every request.
"""

from __future__ import annotations

import pytest

from streamlib.errors import ErrorCode
from tests.errors.replay import case_of
from tests.errors.rows import AT_CONNECTING, NEVER_HEARD, SAYS, all_rows, one_of_each_kind
from tests.errors.together import Case, Verdicts


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        rows = all_rows() if metafunc.config.getoption("--all-errors") else one_of_each_kind()
        metafunc.parametrize("case", list(map(case_of, rows)), ids=str)


def test_the_row_is_what_happens(case: Case, verdicts: Verdicts) -> None:
    verdicts.check(case)


def test_every_code_can_be_heard_somewhere_or_is_known_not_to_be() -> None:
    heard = {code for codes in SAYS.values() for code in codes} | {ErrorCode.NETWORK_EXCEPTION}
    assert heard | AT_CONNECTING | NEVER_HEARD == set(ErrorCode)
    assert not heard & NEVER_HEARD
