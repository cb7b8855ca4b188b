"""Both packages, built once, and empty environments that the wheel is installed into."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

ROOT = Path(__file__).parents[2]
OLDEST, NEWEST = (3, 11), (3, 14)

Ran = subprocess.CompletedProcess[str]


def run_uv(*arguments: str | Path) -> str:
    """What it printed; what it complained of is in the error."""
    ran = subprocess.run([uv.find_uv_bin(), *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "environment" in metafunc.fixturenames:
        versions = ["3.11"] if not metafunc.config.getoption("--all-pythons") else found_pythons()
        metafunc.parametrize("environment", versions, indirect=True, scope="session")


def found_pythons() -> list[str]:
    """The interpreters of supported versions on the path or among pyenv's, one of each version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = []
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        name = f"python3.{minor}"
        candidates = [*sorted(pyenv.glob(f"3.{minor}.*/bin/{name}")), shutil.which(name)]
        found += [str(each) for each in candidates if each and _starts(each)][:1]
    return found


def _starts(python: str | Path) -> bool:
    """pyenv has a shim for each version that it knows of, installed or not."""
    return subprocess.run([python, "--version"], capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run_uv("build", "--quiet", "--out-dir", folder, ROOT)
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def environment(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment that has the wheel, and what it says it depends on."""
    folder = tmp_path_factory.mktemp("environment")
    run_uv("venv", "--quiet", "--no-python-downloads", "--python", request.param, folder)
    run_uv("pip", "install", "--quiet", "--python", folder, wheel)
    return folder / "bin"


@pytest.fixture
def python(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs it in an empty folder, so that nothing of the checkout is found."""
    monkeypatch.delenv("PYTHONPATH", raising=False)

    def run(*arguments: str) -> Ran:
        return subprocess.run(
            [environment / "python", "-W", "error", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run
