"""What the documentation says about errors is what the code does."""

from __future__ import annotations

from tests.docs.error_table import PAGE, intro, table


def test_the_page_has_the_table_of_the_code() -> None:
    assert PAGE.read_text() == intro() + table(), "write it anew: python -m tests.docs.error_table"
