"""A project's names, and its folder, which is there as a whole or not at all."""

from __future__ import annotations

import importlib.metadata
import keyword
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template

import msgspec

from streamlib.cli.errors import UsageError

_TEMPLATE = Path(__file__).with_name("template")
_SUFFIX = ".tmpl"
_NAME = re.compile(r"[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9]")  # PEP 508
_LONGEST_NAME = 100
_TAKEN = frozenset({"streamlib", "tests", "aiokafka", "msgspec", "pytest"})


class ProjectNames(msgspec.Struct, frozen=True):
    """What a project is called, and the package in it."""

    project: str
    package: str

    @staticmethod
    def of(name: str) -> ProjectNames:
        """The names that follow from the one that was given.

        Raises:
            UsageError: it cannot be one.

        >>> ProjectNames.of("Order-Totals").package
        'order_totals'
        """
        if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a project's name: letters, digits, and between them '-', '_' and '.', "
                f"at most {_LONGEST_NAME}"
            )
        package = re.sub(r"[-_.]+", "_", name).lower()
        if not package.isidentifier() or keyword.iskeyword(package):
            raise UsageError(f"{name!r} cannot be a project's name: its package, {package}, would be none in Python")
        if package in _TAKEN or package in sys.stdlib_module_names:
            raise UsageError(f"{name!r} cannot be a project's name: there is a module {package} already")
        return ProjectNames(name, package)


def make_project(names: ProjectNames, parent: Path) -> Path:
    """Make the project's folder, with everything in it; returns it.

    Raises:
        UsageError: it is there already, or cannot be written.
    """
    folder = parent / names.project
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} is there already: nothing was written")
    try:
        staging = Path(tempfile.mkdtemp(prefix=".streamlib-new-", dir=parent))
    except OSError as error:
        raise UsageError(f"cannot write to {parent}: {error.strerror or error}") from None
    try:
        _fill(staging / "project", names)
        os.rename(staging / "project", folder)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _fill(folder: Path, names: ProjectNames) -> None:
    values = {**msgspec.structs.asdict(names), "version": importlib.metadata.version("streamlib")}
    for path, content in _files(values):
        target = folder / path.replace("package/", f"{names.package}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)


def _files(values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for path in sorted(_TEMPLATE.rglob(f"*{_SUFFIX}")):
        name = path.relative_to(_TEMPLATE).as_posix().removesuffix(_SUFFIX)
        yield name, Template(path.read_text()).substitute(values)
