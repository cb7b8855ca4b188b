"""A schedule comes from its seed alone, ends in time, and leaves nothing out."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from tests.chaos.schedule import schedule

WORKERS = ["a", "b", "c"]


def test_the_same_seed_gives_the_same_steps_and_another_one_others() -> None:
    assert schedule(1, 600, WORKERS, short=False) == schedule(1, 600, WORKERS, short=False)
    assert schedule(1, 600, WORKERS, short=False) != schedule(2, 600, WORKERS, short=False)


def test_steps_of_a_lane_follow_each_other_and_end_in_time() -> None:
    for lane in schedule(3, 600, WORKERS, short=False).values():
        for before, after in pairwise(lane):
            assert before.at_s + before.for_s < after.at_s
        assert lane[-1].at_s + lane[-1].for_s < 600


def test_half_an_hour_kills_a_hundred_workers_and_twenty_brokers() -> None:
    for seed in range(10):
        kinds = Counter(step.kind for lane in schedule(seed, 1800, WORKERS, short=False).values() for step in lane)
        assert kinds["kill: worker"] + kinds["wipe: worker"] + 3 * kinds["kill all: worker"] >= 100
        assert kinds["kill: broker"] + 3 * kinds["outage: broker"] >= 20
        assert min(kinds.values()) >= 1
        assert len(kinds) == 17


def test_the_short_form_has_each_of_its_kinds() -> None:
    for seed in range(10):
        kinds = Counter(step.kind for lane in schedule(seed, 28, WORKERS, short=True).values() for step in lane)
        assert kinds["kill: worker"] >= 1
        assert kinds["kill: broker"] >= 1
