"""Leaderboard: the best players of each game, asked for over HTTP, straight from the stores of the workers.

Shows a table made from another one (totals, then the best of each game), and interactive queries: any worker is asked,
and one that does not have the game sends the caller on to the one that has. Needs `pip install "streamlib[web]"`. With
two workers:

    streamlib broker topic scores leaderboards --partitions 2
    python -m examples.leaderboard 8090
    python -m examples.leaderboard 8091
    streamlib produce scores --json --recent --value json < examples/data/leaderboard/scores.jsonl
    curl --location 'http://localhost:8090/top/chess?n=2'

Without pages of one's own, `streamlib run` answers the same question, from the same store:

    streamlib run examples/leaderboard.py --web 8092
    curl http://localhost:8092/stores/best/keys/chess
"""

import sys
from typing import Any

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from streamlib import (
    InvalidStateStoreError,
    InvalidStateStorePartitionError,
    KafkaStreams,
    ReadOnlyKeyValueStore,
    StreamsBuilder,
    StreamsConfig,
    Sum,
)
from streamlib.web.server import WebServer

KEPT = 100


class Score(msgspec.Struct):
    """Points of a player, who is the key, in a game; never less than none."""

    game: str
    points: int


class Place(msgspec.Struct, frozen=True):
    """Who plays what."""

    game: str
    player: str


class Entry(msgspec.Struct, frozen=True):
    """A line of a leaderboard."""

    player: str
    points: int


class Best(msgspec.Struct, frozen=True):
    """The best of a game, in order. Totals only grow, so who drops out comes back by scoring, and in no other way."""

    entries: tuple[Entry, ...] = ()

    def plus(self, entry: Entry) -> "Best":
        """With one more, if that is good enough."""
        entries = sorted((*self.entries, entry), key=lambda each: (-each.points, each.player))
        return Best(tuple(entries[:KEPT]))

    def minus(self, entry: Entry) -> "Best":
        """Without a player's former total."""
        return Best(tuple(each for each in self.entries if each.player != entry.player))


def topology() -> StreamsBuilder:
    """Scores in, leaderboards out, and in the store `best`."""
    builder = StreamsBuilder()
    totals = (
        builder.stream("scores", key=str, value=Score)
        .filter(lambda _, score: score.points > 0)
        .group_by(lambda player, score: Place(score.game, player), key=Place, name="by-place")
        .aggregate(Sum(of=lambda score: score.points, type=int), store="totals")
    )
    best = totals.group_by(
        lambda place, points: (place.game, Entry(place.player, points)), key=str, value=Entry, name="by-game"
    ).aggregate(
        Best,
        lambda _, entry, best: best.plus(entry),
        lambda _, entry, best: best.minus(entry),
        value=Best,
        store="best",
    )
    best.to_stream().to("leaderboards")
    return builder


def pages(app: KafkaStreams) -> list[BaseRoute]:
    """`/top/GAME?n=10`: of this worker's store what it has, and where to find the rest."""

    async def top(request: Request) -> Response:
        game, n = request.path_params["game"], int(request.query_params.get("n", 10))
        try:
            found = await app.store("best", ReadOnlyKeyValueStore[str, Best]).get(game)
        except InvalidStateStorePartitionError as error:
            if error.owner is None:
                return _again(error)
            return RedirectResponse(str(request.url.replace(netloc=error.owner)))
        except InvalidStateStoreError as error:  # it is starting, or tasks are on their way, or being restored
            return _again(error)
        return JSONResponse(msgspec.to_builtins(found.entries[:n]) if found is not None else [])

    return [Route("/top/{game}", top)]


def _again(error: InvalidStateStoreError) -> Response:
    return JSONResponse({"error": str(error)}, status_code=503, headers={"Retry-After": "1"})


config: dict[str, Any] = {"application_id": "leaderboard", "processing_guarantee": "exactly_once_v2"}


async def main(port: int) -> None:
    """A worker with its pages, until Ctrl-C."""
    settings = StreamsConfig.load(config | {"application_server": f"127.0.0.1:{port}"})
    app = KafkaStreams(topology().build(), settings)
    with WebServer(app, str(port), routes=pages(app)):
        await app.run()


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]))
