"""The messages from a worker process to its supervisor: JSON lines on a socket that both ends watch.

The end of the stream says that the other side is gone, however it went.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from streamlib.runtime.worker import WorkerStatus


class Report(msgspec.Struct, frozen=True, tag="status"):
    """What a worker is doing, and what it has cost so far. `time_s` is monotonic, the same clock for all of a host."""

    status: WorkerStatus
    running: bool
    time_s: float
    cpu_s: float
    peak_bytes: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Why a worker ends. `passing`: another start may help, for example when no broker answered."""

    text: str
    exit_code: int
    passing: bool


Message: TypeAlias = Report | Failed

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Report | Failed)


def encode(message: Message) -> bytes:
    """One line."""
    return _encoder.encode(message) + b"\n"


class Lines:
    """Cuts a stream of bytes into lines; an unfinished one waits for its rest."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their ends."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def rest(self) -> bytes:
        """What came after the last line break."""
        rest, self._rest = self._rest, b""
        return rest


def decode(line: bytes) -> Message:
    """The message of one line."""
    return _decoder.decode(line)
