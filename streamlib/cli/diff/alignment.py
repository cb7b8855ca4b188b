"""Which node of an earlier topology is which of the present one, whatever they are called.

Generated names count up, so a step that is put in renames all that come after it. What nodes do does not change by
that: the sequences of what they do are laid side by side, and those that are alike in both belong together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

import msgspec

from streamlib.cli.diff.snapshot import NodeSnapshot, Snapshot

_NUMBER = re.compile(r"\d{10}")


class Alignment(msgspec.Struct, frozen=True):
    """`pairs`: earlier name -> present name; nodes that were put in or taken out are in none of them."""

    pairs: Mapping[str, str]
    added: tuple[NodeSnapshot, ...]
    removed: tuple[NodeSnapshot, ...]

    @property
    def why_shifted(self) -> str:
        """What has made generated names count otherwise."""
        came = [f"{each.name} was put in" for each in self.added if is_generated(each.name)]
        went = [f"{each.name} was taken out" for each in self.removed if is_generated(each.name)]
        return next(iter([*came, *went]), "there are other steps before it")


def is_generated(name: str) -> bool:
    """Whether a name counts up with the steps before it.

    >>> is_generated("KSTREAM-AGGREGATE-STATE-STORE-0000000002"), is_generated("totals")
    (True, False)
    """
    return _NUMBER.search(name) is not None


def without_number(name: str) -> str:
    """A generated name as it is whatever came before it.

    >>> without_number("KSTREAM-FILTER-0000000012")
    'KSTREAM-FILTER-#'
    """
    return _NUMBER.sub("#", name)


def align(old: Snapshot, new: Snapshot) -> Alignment:
    """Lay the nodes of both side by side, in the order they were added."""
    same = {each.name for each in old.nodes if not is_generated(each.name)} & {each.name for each in new.nodes}
    pairs = {name: name for name in same}
    befores = [each for each in old.nodes if each.name not in same]
    afters = [each for each in new.nodes if each.name not in same]
    matcher = SequenceMatcher(None, _signatures(befores), _signatures(afters), autojunk=False)
    for at_old, at_new, size in matcher.get_matching_blocks():
        pairs |= {befores[at_old + i].name: afters[at_new + i].name for i in range(size)}
    present = set(pairs.values())
    return Alignment(
        pairs,
        tuple(each for each in new.nodes if each.name not in present),
        tuple(each for each in old.nodes if each.name not in pairs),
    )


def _signatures(nodes: Sequence[NodeSnapshot]) -> list[tuple[object, ...]]:
    """What a node does, without what is counted up."""
    return [
        (
            each.kind,
            each.operator,
            each.pattern,
            tuple(map(without_number, each.topics)),
            tuple(map(without_number, each.stores)),
            without_number(each.name),
        )
        for each in nodes
    ]
