"""The documentation's table of errors, from those in the code; `python -m tests.docs.error_table` writes it.

Where a code can come from, and what is done about it at some requests only, is what `tests/errors` plays on a broker.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from streamlib.errors import ErrorCode
from streamlib.kafka.errors import ERROR_TABLE
from streamlib.runtime.failures import ACTIONS, Action
from tests.errors.rows import AT_CONNECTING, SAYS, STREAMS_SAYS, Outcome, Row, phases

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "failures.md"
HEAD = (
    "| error | code | comes from | asked again first | then | what it means, what to do |\n"
    "| --- | --- | --- | --- | --- | --- |\n"
)
# What an action looks like from outside; anything else is worth a word.
EXPECTED = {
    Action.REDO: {Outcome.REDONE, Outcome.REJOINED},
    Action.FENCED: {Outcome.REDONE, Outcome.REJOINED},
    Action.MIGRATED: {Outcome.REJOINED},
    Action.FATAL: {Outcome.STOPPED},
}
WORDS = {
    Outcome.RETRIED: "asked again",
    Outcome.PASSED: "passed over",
    Outcome.JOINED: "joined again, tasks kept",
    Outcome.STOPPED: "does not start",
}


def table() -> str:
    """One row for each code that brokers answer with."""
    codes = sorted((code for code in ErrorCode if code is not ErrorCode.NONE), key=int)
    return HEAD + "".join(map(row, codes))


def row(code: ErrorCode) -> str:
    known = ERROR_TABLE[code]
    again = "yes" if known.retriable else "no"
    return f"| `{code.name}` | {code.value} | {sources(code)} | {again} | {then(code)} | {known.hint} |\n"


def sources(code: ErrorCode) -> str:
    if code in AT_CONNECTING:
        return "connecting"
    if code is ErrorCode.NETWORK_EXCEPTION:
        return "any request"
    said = dict.fromkeys(api for says in (SAYS, STREAMS_SAYS) for api, codes in says.items() if code in codes)
    return ", ".join(said) or "no request of ours"


def then(code: ErrorCode) -> str:
    """What becomes of the worker, and at which requests something else does."""
    others: dict[str, list[str]] = defaultdict(list)
    for api, codes in SAYS.items():
        outcome = Row(api, code, phases(api)[-1]).outcome
        usual = outcome in EXPECTED[ACTIONS[code]] or (outcome is Outcome.RETRIED and ERROR_TABLE[code].retriable)
        if code in codes and not usual:
            others[WORDS[outcome]].append(api)
    exceptions = [f"{', '.join(apis)}: {words}" for words, apis in others.items()]
    return "; ".join([ACTIONS[code].value, *exceptions])


def intro() -> str:
    """The page without its table."""
    return PAGE.read_text().partition(HEAD)[0]


if __name__ == "__main__":
    PAGE.write_text(intro() + table())
