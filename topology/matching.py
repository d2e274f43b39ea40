"""Which of today's communities is which of yesterday's groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence


def match_by_overlap(
    before: Iterable[tuple[str, frozenset[str]]], now: Sequence[frozenset[str]], min_jaccard: float
) -> dict[int, str]:
    """The group that each community continues, as index into ``now`` -> id in ``before``.

    ``before`` may show a group in several ways (its members, the community it was last
    found as): the best counts. Communities are disjoint. Pairs are taken greedily, the largest Jaccard
    index first, each id and each community once; a pair below ``min_jaccard``, or without
    a common member, is not taken. Ties go to what comes first in ``before``, then in ``now``.

    Greedy and not the optimal assignment: the two can differ only among overlaps of less
    than half, and greedy needs no n-by-n matrix.
    """
    shapes = list(before)
    matched = _unchanged(shapes, now)
    taken = set(matched.values())
    shapes_of: dict[str, list[int]] = {}
    for shape, (group_id, members) in enumerate(shapes):
        if group_id not in taken:
            for member in members:
                shapes_of.setdefault(member, []).append(shape)
    pairs: list[tuple[float, int, int]] = []
    for index, members in enumerate(now):
        if index in matched:
            continue
        common = Counter(shape for member in members for shape in shapes_of.get(member, ()))
        for shape, shared in common.items():
            jaccard = shared / (len(members) + len(shapes[shape][1]) - shared)
            if jaccard >= min_jaccard:
                pairs.append((-jaccard, shape, index))
    for _, shape, index in sorted(pairs):
        group_id = shapes[shape][0]
        if index not in matched and group_id not in taken:
            matched[index] = group_id
            taken.add(group_id)
    return matched


def _unchanged(shapes: Sequence[tuple[str, frozenset[str]]], now: Sequence[frozenset[str]]) -> dict[int, str]:
    """The pairs that overlap whole, taken first: of most communities no member need be looked at."""
    index_of = {members: index for index, members in enumerate(now) if members}
    matched: dict[int, str] = {}
    taken: set[str] = set()
    for group_id, members in shapes:
        index = index_of.get(members)
        if index is not None and index not in matched and group_id not in taken:
            matched[index] = group_id
            taken.add(group_id)
    return matched
