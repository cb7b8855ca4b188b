"""The reference has every public name, documented; that it builds without a warning is checked by `make test`."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import streamlib
import streamlib.schemas
import streamlib.testing
import streamlib.testing.broker
from streamlib.monitoring.endpoint import MetricsEndpoint
from streamlib.monitoring.opentelemetry import OpenTelemetryMetrics
from streamlib.monitoring.prometheus import PrometheusCollector
from streamlib.monitoring.tracing import OpenTelemetryTracing
from streamlib.simulation.faults import Fault
from streamlib.web.console import Console
from streamlib.web.server import WebServer
from streamlib.web.stores.routes import StoreRoutes

API = Path(__file__).parents[2] / "docs" / "pages" / "api"
DESCRIBED = frozenset(
    name for page in API.glob("*.md") for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)
)
MODULES = [streamlib, streamlib.testing, streamlib.testing.broker, streamlib.schemas]
# Of modules without a list of names: what the pages tell users to import.
OTHERS = [
    *(MetricsEndpoint, OpenTelemetryMetrics, OpenTelemetryTracing, PrometheusCollector),
    *(Console, StoreRoutes, WebServer),
    *typing.get_args(Fault),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference(module: ModuleType) -> None:
    public = {f"{module.__name__}.{name}" for name in module.__all__ if not name.startswith("_")}
    assert public - DESCRIBED == set()


def test_other_modules_are_in_the_reference_as_far_as_users_need_them() -> None:
    assert {f"{each.__module__}.{each.__name__}" for each in OTHERS} - DESCRIBED == set()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_and_method_is_documented(module: ModuleType) -> None:
    silent = [
        where
        for name in module.__all__
        for where, thing in parts(name, getattr(module, name))
        if not (inspect.getdoc(thing) or "").strip()
    ]
    assert silent == []


def parts(name: str, thing: object) -> Iterator[tuple[str, object]]:
    """A class or function, and the functions and properties that a class itself has."""
    if inspect.isfunction(thing) or inspect.isclass(thing):
        yield name, thing
    if inspect.isclass(thing):
        for each, member in vars(thing).items():
            if not each.startswith("_") and isinstance(member, property | classmethod | staticmethod | type(parts)):
                yield f"{name}.{each}", member
