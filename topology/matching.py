"""Which of today's communities is which of yesterday's groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence


def match_by_overlap(
    before: Iterable[tuple[str, frozenset[str]]], now: Sequence[frozenset[str]], min_jaccard: float
) -> dict[int, str]:
    """The group that each community continues, as index into ``now`` -> id in ``before``.

    ``before`` may show a group in several ways (its members, the community it was last
    found as): the best counts. Pairs are taken greedily, the largest Jaccard
    index first, each id and each community once; a pair below ``min_jaccard``, or without
    a common member, is not taken. Ties go to what comes first in ``before``, then in ``now``.

    Greedy and not the optimal assignment: the two can differ only among overlaps of less
    than half, and greedy needs no n-by-n matrix.
    """
    shapes = list(before)
    shapes_of: dict[str, list[int]] = {}
    for shape, (_, members) in enumerate(shapes):
        for member in members:
            shapes_of.setdefault(member, []).append(shape)
    pairs: list[tuple[float, int, int]] = []
    for index, members in enumerate(now):
        common = Counter(shape for member in members for shape in shapes_of.get(member, ()))
        for shape, shared in common.items():
            jaccard = shared / (len(members) + len(shapes[shape][1]) - shared)
            if jaccard >= min_jaccard:
                pairs.append((-jaccard, shape, index))
    matched: dict[int, str] = {}
    taken: set[str] = set()
    for _, shape, index in sorted(pairs):
        group_id = shapes[shape][0]
        if index not in matched and group_id not in taken:
            matched[index] = group_id
            taken.add(group_id)
    return matched
