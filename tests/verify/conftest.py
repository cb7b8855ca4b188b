"""The command, as in the tests of the command line."""

from __future__ import annotations

from tests.cli.conftest import streamlib

__all__ = ["streamlib"]
