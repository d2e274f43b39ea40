"""Pools by what people call them: a path, or the end of one."""

from __future__ import annotations

from collections.abc import Sequence

from planner.snapshot import Level, NotThere

#: Rows by the last part of their path, of the paths that were asked about lately. Paths are told apart by
#: identity: a structure's are never changed, only replaced.
_KEPT = 3
_indices: list[tuple[Sequence[str], dict[str, list[int]]]] = []


def rows_ending(paths: Sequence[str], name: str) -> list[int]:
    """Rows of the pools with this path or, if there is none, of those whose path ends so; rising."""
    among = _index(paths).get(name.rpartition("/")[2], [])
    exact = [row for row in among if paths[row] == name]
    return exact or [row for row in among if paths[row].endswith(f"/{name}")]


def row_of(paths: Sequence[str], pool: str) -> int:
    """Row of the pool with this path, or of the only one whose path ends so. Raises NotThere.

    A class of some user goes by its own name alone only where nothing above does.
    """
    found = rows_ending(paths, pool)
    found = [row for row in found if paths[row].count("/") < Level.APPLICATION] or found
    if not found:
        raise NotThere(f"pool must be a path of the tree or the end of one, got {pool!r}")
    if len(found) > 1:
        shown = ", ".join(paths[row] for row in found[:5])
        raise NotThere(f"pool must be one pool, got {pool!r}, which is {shown}")
    return found[0]


def _index(paths: Sequence[str]) -> dict[str, list[int]]:
    """The index of these paths, made at the first question. Any thread may ask."""
    for known, index in _indices:
        if known is paths:
            return index
    made: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        made.setdefault(path.rpartition("/")[2], []).append(row)
    # Two threads may both make it: then it is there twice until it makes room.
    _indices[:] = [*_indices[1 - _KEPT :], (paths, made)]
    return made
