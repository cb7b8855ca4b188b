"""`streamlib query`: looks into a store of a running application."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import msgspec
import typer

from streamlib.cli.options import JsonOption
from streamlib.cli.top.asking import DEFAULT_URL, Asking, NoAnswerError, console_url
from streamlib.cli.top.command import TOKEN_VARIABLE, token_from

MOST_AT_ONCE = 1_000  # as the server has it


def query(
    store: Annotated[str, typer.Argument(metavar="STORE", help="The store's name.")],
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Text as it is, bytes in base64, anything else in JSON.")
    ] = None,
    url: Annotated[str, typer.Option(help="Of any worker's web server; a port is one of this host.")] = DEFAULT_URL,
    first: Annotated[str | None, typer.Option("--from", metavar="KEY", help="From this key on.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="KEY", help="Up to this key, inclusive.")] = None,
    prefix: Annotated[str | None, typer.Option(metavar="TEXT", help="Keys that begin with this.")] = None,
    from_ms: Annotated[int | None, typer.Option(metavar="MS", help="Windows and versions from this time on.")] = None,
    to_ms: Annotated[int | None, typer.Option(metavar="MS", help="Windows and versions up to this time.")] = None,
    as_of: Annotated[int | None, typer.Option(metavar="MS", help="The version that held at this time.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many rows at most.")] = 100,
    stale: Annotated[bool, typer.Option("--stale", help="Copies will do, which may be out of date.")] = False,
    partition: Annotated[int | None, typer.Option(help="Only this one.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Holds the web server's token, if {TOKEN_VARIABLE} does not.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Look into a store of a running application ('run --web'), whichever worker has the key.

    With a KEY it prints its value, or its windows; without one, rows. --json prints each row as a line of JSON.

    Example: streamlib query counts ann --url http://shop-0:8080

    Example: streamlib query per-minute ann --from-ms 1700000000000 --json
    """
    asking = Asking(console_url(url), token_from(token_file))
    given = {
        "from": first, "to": last, "prefix": prefix, "from_ms": from_ms, "to_ms": to_ms, "as_of": as_of,
        "partition": partition, "stale": "true" if stale else None,
    }  # fmt: skip
    said = {name: str(value) for name, value in given.items() if value is not None}
    path = f"/stores/{quote(store, safe='')}" + ("" if key is None else f"/keys/{quote(key, safe='')}")
    for row in _rows(asking, path, said, limit):
        print(msgspec.json.encode(row).decode() if json else _line(row, alone=key is not None), flush=True)


def _rows(asking: Asking, path: str, said: dict[str, str], limit: int) -> Iterator[dict[str, Any]]:
    """The row that is asked for, or rows page by page."""
    cursor: str | None = None
    while limit > 0:
        page = {"limit": str(min(limit, MOST_AT_ONCE)), **said, **({} if cursor is None else {"cursor": cursor})}
        answer = _answer(asking, f"{path}?{urlencode(page)}")
        if "rows" not in answer:
            yield answer
            return
        yield from answer["rows"]
        limit, cursor = limit - len(answer["rows"]), answer.get("cursor")
        if cursor is None:
            return


def _answer(asking: Asking, path: str) -> dict[str, Any]:
    status, body = asking.get(path)
    try:
        told = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        hint = f": set {TOKEN_VARIABLE}, or give --token-file" if status == 401 else ": is it that of 'run --web'?"
        raise NoAnswerError(f"the web server answers with status {status}{hint}") from None
    if status != 200:
        raise NoAnswerError(told.get("message", f"the web server answers with status {status}"))
    return told


def _line(row: dict[str, Any], *, alone: bool) -> str:
    """Key, window and value; of one row the value alone."""
    columns = [] if alone else [row["key"]]
    if window := row.get("window"):
        columns.append(f"{_time(window['start'])}..{_time(window['end'])}")
    columns.append(row["value"])
    return "\t".join(each if isinstance(each, str) else msgspec.json.encode(each).decode() for each in columns)


def _time(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return str(ms)  # an unlimited window
