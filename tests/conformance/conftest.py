"""Where the case files are: the whole corpus if it is there, and always the small part of it that is kept here."""

from __future__ import annotations

from pathlib import Path

import pytest

KEPT = Path(__file__).parent / "cases"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that takes a `case_file` all there are."""
    if "case_file" not in metafunc.fixturenames:
        return
    corpus = metafunc.config.getoption("corpus")
    files = {path.stem: path for folder in (KEPT, corpus) for path in sorted(folder.glob("*.json"))}
    parameters = [pytest.param(path, id=name) for name, path in sorted(files.items())]
    if not corpus.is_dir():
        reason = f"{corpus} is not there: give the folder of the whole corpus with --corpus"
        parameters.append(pytest.param(None, id="corpus", marks=pytest.mark.skip(reason=reason)))
    metafunc.parametrize("case_file", parameters)
