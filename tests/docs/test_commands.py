"""The reference of the commands has each of them, with its options."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from streamlib.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]


def reference() -> str:
    """As MkDocs makes it."""
    found = importlib.util.spec_from_file_location("commands", ROOT / "docs" / "commands.py")
    assert found is not None
    assert found.loader is not None
    module: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    page = (ROOT / "docs" / "pages" / "api" / "commands.md").read_text()
    return str(module.on_page_markdown(page))


def test_each_command_has_a_section_with_its_options() -> None:
    text = reference()
    assert all(f"\n## streamlib {name}" in text for name in COMMANDS)
    run = text.partition("\n## streamlib run\n")[2].partition("\n## ")[0]
    assert "    streamlib run MODULE:NAME [OPTIONS]" in run
    assert "| `--workers N` | `1` | Number of worker processes on this host. |" in run
    assert "    streamlib run shop.revenue:topology --config prod.toml --set commit_interval_ms=200" in run
    assert "| `--yes`, `-y` |  | Do not ask. |" in text
    assert "| `--kill`, `--no-kill` | on |" in text
    assert "--supervisor-fd" not in text  # hidden: for workers only
    assert "\n## streamlib dlq replay\n" in text
    consume = text.partition("\n## streamlib consume\n")[2]
    assert "| `--isolation read_committed\\|read_uncommitted` | `read_committed` |" in consume
