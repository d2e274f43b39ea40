"""Which of today's communities is which of yesterday's groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence


def match_by_overlap(
    before: Mapping[str, frozenset[str]], now: Sequence[frozenset[str]], min_jaccard: float
) -> dict[int, str]:
    """The group that each community continues, as index into ``now`` -> id in ``before``.

    Pairs are taken greedily, the largest Jaccard index first, each id and each
    community once; a pair below ``min_jaccard``, or without a common member, is
    not taken. Ties go to the earlier id in ``before``, then to the earlier community.

    Communities are disjoint and so are the groups: at most one pair can hold more
    than half of both sides, so greedy differs from the optimal assignment
    only among weak overlaps, and it needs no n-by-n matrix.
    """
    group_of = {member: group_id for group_id, members in before.items() for member in members}
    age = {group_id: rank for rank, group_id in enumerate(before)}
    pairs: list[tuple[float, int, int, str]] = []
    for index, members in enumerate(now):
        common = Counter(group_of[member] for member in members if member in group_of)
        for group_id, shared in common.items():
            jaccard = shared / (len(members) + len(before[group_id]) - shared)
            if jaccard >= min_jaccard:
                pairs.append((-jaccard, age[group_id], index, group_id))
    matched: dict[int, str] = {}
    taken: set[str] = set()
    for _, _, index, group_id in sorted(pairs):
        if index not in matched and group_id not in taken:
            matched[index] = group_id
            taken.add(group_id)
    return matched
