"""An error as text for a person: one line that says what to do, and of the user's own code its frames."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

import msgspec

from streamlib.errors import StreamsError

USAGE_EXIT = 2
FAILURE_EXIT = 1
INTERRUPTED_EXIT = 130  # 128 + SIGINT, as shells say it

_PACKAGE = str(Path(__file__).parent.parent) + os.sep
_IMPORT_SYSTEM = ("<frozen ", importlib.__file__)
_MOST_FRAMES = 8


class UsageError(StreamsError):
    """The command line asks for something that is not there; exit code 2."""


def exit_code(error: StreamsError) -> int:
    """2 for what is wrong with the command line, 1 for everything else."""
    return USAGE_EXIT if isinstance(error, UsageError) else FAILURE_EXIT


def describe(error: BaseException, *, debug: bool = False) -> str:
    """One line, then the frames of the user's code if that is what raised; with `debug` the whole traceback.

    An exception that is not ours is a defect of streamlib's, and comes with its whole traceback.
    """
    if debug or not isinstance(error, StreamsError):
        return "".join(traceback.format_exception(error)).rstrip()
    return "\n".join([one_line(error), *user_traceback(error.__cause__)])


def one_line(error: StreamsError) -> str:
    """The message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def user_traceback(cause: BaseException | None) -> list[str]:
    """The part of a traceback below streamlib: from the user's function on. Empty if no such frame exists."""
    if cause is None or isinstance(cause, StreamsError):
        return []
    frames = _below_streamlib(cause.__traceback__)
    if not frames and not isinstance(cause, SyntaxError):  # a syntax error tells its place itself
        return []
    shown = traceback.format_list(frames[-_MOST_FRAMES:])
    if len(frames) > _MOST_FRAMES:
        shown.insert(0, f"  ... {len(frames) - _MOST_FRAMES} frames\n")
    text = "".join([*shown, *traceback.format_exception_only(cause)])
    return text.rstrip().split("\n")


def json_wanted() -> bool:
    """Whether the command line asks for JSON: then errors are JSON, too."""
    return "--json" in sys.argv[1:]


def print_error(error: StreamsError, code: int) -> None:
    """Tell on standard error what ends the command; as one JSON object if that is asked for."""
    text = describe(error, debug=debug_wanted())
    if json_wanted():
        print_json_error(type(error).__name__, text, code)
    else:
        print(f"error: {text}", file=sys.stderr, flush=True)


def print_json_error(kind: str, text: str, code: int) -> None:
    """`{"error": {"type": ..., "message": ..., "exit_code": ..., "traceback": [...]}}`, on one line."""
    message, *trace = text.splitlines() or [""]
    told = {"type": kind, "message": message, "exit_code": code, "traceback": trace}
    print(msgspec.json.encode({"error": told}).decode(), file=sys.stderr, flush=True)


def debug_wanted() -> bool:
    """Whether STREAMLIB_DEBUG asks for whole tracebacks."""
    return os.environ.get("STREAMLIB_DEBUG", "0") not in ("", "0")


def _below_streamlib(trace: TracebackType | None) -> traceback.StackSummary:
    """The frames after the last one of streamlib's; those of the import system are left out."""
    frames = traceback.extract_tb(trace)
    ours = [i for i, frame in enumerate(frames) if frame.filename.startswith(_PACKAGE)]
    below = frames[ours[-1] + 1 :] if ours else frames
    return traceback.StackSummary.from_list([frame for frame in below if not frame.filename.startswith(_IMPORT_SYSTEM)])
