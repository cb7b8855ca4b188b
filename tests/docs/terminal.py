"""A shell that is given the blocks of a page one after the other, as a reader copies them into a terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.docs.blocks import Block

# What a shell itself says of a job that was killed, in whichever block it comes to it.
_SHELLS_OWN = re.compile(r"^\S*bash: line \d+: +\d+ (Killed|Terminated|Done)")
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z")
_ANYTHING = "..."
PATIENCE_S = 240.0


class Terminal:
    """A shell in a folder. Ends with all that it has started."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        self._shell.communicate()

    def run(self, commands: str) -> tuple[str, int]:
        """What a block prints, and the exit code of its last command.

        One that does not come to its end, because it waits for what never comes, is ended with its shell.
        """
        timer = threading.Timer(PATIENCE_S, self._kill)
        timer.start()
        try:
            return self._run(commands)
        finally:
            timer.cancel()

    def _run(self, commands: str) -> tuple[str, int]:
        end = uuid.uuid4().hex
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{commands}\necho {end} $?\n")
        self._shell.stdin.flush()
        lines: list[str] = []
        for line in self._shell.stdout:
            before, found, code = line.partition(end)
            if found:
                lines += [before] if before else []
                return "".join(each for each in lines if not _SHELLS_OWN.match(each)), int(code)
            lines.append(line)
        raise AssertionError(f"the shell has ended, in\n{commands}\n{''.join(lines)}")

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)


def is_as_shown(output: str, shown: str) -> bool:
    """Whether an output is what a page shows.

    `...` stands for any text, as a line of its own for any lines; times of records are any times. Without such a line
    the order of lines does not matter: partitions are read as they come.
    """
    there = [line.rstrip() for line in output.splitlines()]
    expected = [line.rstrip() for line in shown.splitlines()]
    if _ANYTHING in expected:
        pattern = "".join("(?:.*\n)*" if line == _ANYTHING else f"{_pattern(line)}\n" for line in expected)
        return re.fullmatch(pattern, "".join(f"{line}\n" for line in there)) is not None
    left = Counter(there)
    for line in expected:
        match = next((each for each in left if re.fullmatch(_pattern(line), each)), None)
        if match is None:
            return False
        left -= Counter([match])
    return not left


def follow(terminal: Terminal, folder: Path, blocks: list[Block], replaced: Mapping[str, str]) -> list[str]:
    """Do what a page says: save its files, run its commands, compare what they print. Returns the commands that ran."""
    done: list[str] = []
    output = ""
    for block in blocks:
        code = block.code
        for text, instead in replaced.items():
            code = code.replace(text, instead)
        if block.language == "python" and block.title:
            (folder / block.title).write_text(code)
        elif block.language == "sh":
            output, exit_code = terminal.run(code)
            assert exit_code == 0, f"{block.where}: exit code {exit_code}\n{code}\n{output}{_logs(folder)}"
            done.append(code)
        elif block.language == "text":
            assert is_as_shown(output, code), f"{block.where} shows\n{code}\nbut it is\n{output}{_logs(folder)}"
    return done


def _pattern(line: str) -> str:
    text = _TIME.sub("TIME", line)
    return re.escape(text).replace(re.escape(_ANYTHING), ".*").replace("TIME", _TIME.pattern)


def _logs(folder: Path) -> str:
    return "".join(f"\n{log.name}:\n{log.read_text()}" for log in folder.glob("*.log"))
