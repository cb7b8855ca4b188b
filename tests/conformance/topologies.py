"""Kafka Streams' topologies of the case files, written with our DSL; the name is the file's."""

from __future__ import annotations

import importlib
import pkgutil

import tests.conformance.ported
from tests.conformance.ported.registry import TOPOLOGIES

for module in pkgutil.iter_modules(tests.conformance.ported.__path__, "tests.conformance.ported."):
    importlib.import_module(module.name)  # which fills `TOPOLOGIES`

__all__ = ["TOPOLOGIES"]
