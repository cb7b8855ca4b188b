"""The documentation's table of errors, from those in the code; `python -m tests.docs.error_table` writes it."""

from __future__ import annotations

from pathlib import Path

from streamlib.errors import ErrorCode
from streamlib.kafka.errors import ERROR_TABLE
from streamlib.runtime.failures import ACTIONS

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "failures.md"
HEAD = "| error | code | asked again first | then | what it means, what to do |\n| --- | --- | --- | --- | --- |\n"


def table() -> str:
    """One row for each code that brokers answer with."""
    codes = sorted((code for code in ErrorCode if code is not ErrorCode.NONE), key=int)
    return HEAD + "".join(map(row, codes))


def row(code: ErrorCode) -> str:
    known = ERROR_TABLE[code]
    again = "yes" if known.retriable else "no"
    return f"| `{code.name}` | {code.value} | {again} | {ACTIONS[code].value} | {known.hint} |\n"


def intro() -> str:
    """The page without its table."""
    return PAGE.read_text().partition(HEAD)[0]


if __name__ == "__main__":
    PAGE.write_text(intro() + table())
