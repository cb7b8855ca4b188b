"""The page of the command line is what the commands say of themselves."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from streamlib.cli.main import make_app
from tests.docs.cli_reference import PAGE, Command, commands, page_with

SHELL = {"--help", "--install-completion", "--show-completion"}


def test_the_documented_commands_are_those_there_are() -> None:
    assert PAGE.read_text() == page_with(commands()), "run: python -m tests.docs.cli_reference"


@pytest.mark.parametrize("command", list(commands()), ids=lambda command: " ".join(command.path))
def test_help_lists_the_documented_options(command: Command) -> None:
    said = CliRunner().invoke(make_app(), [*command.path, "--help"], env={"COLUMNS": "250", "NO_COLOR": "1"}).stdout
    listed = set(re.findall(r"^[│ *]*(?:-\w, )?(--[a-z][a-z-]*)", said, re.MULTILINE)) - SHELL
    assert listed == {next(name for name in each.names if name.startswith("--")) for each in command.options}


def test_every_command_for_programs_has_json() -> None:
    without = {" ".join(each.path) for each in commands() if not any("--json" in o.names for o in each.options)}
    assert without <= {"top"}  # which is for people's eyes
