"""Lines of text, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

_TEXT = """
the of and a to in is you that it he was for on are as with his they at be this have from or one had by word
but not what all were we when your can said there use an each which she do how their if will up other about
out many then them these so some her would make like him into time has look two more write go see number no
way could people my than first water been call who oil its now find long down day did get come made may part
stream table topic offset
"""
_WORDS = tuple(_TEXT.split())


def text_lines(count: int, *, seed: int = 1, words_per_line: int = 8) -> Iterator[str]:
    """Lines in which some words are far more frequent than others, as in real text."""
    chance = random.Random(seed)
    weights = [1 / rank for rank in range(1, len(_WORDS) + 1)]
    for _ in range(count):
        yield " ".join(chance.choices(_WORDS, weights, k=words_per_line))
