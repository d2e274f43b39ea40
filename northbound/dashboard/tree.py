"""The pool tree as a table: opened by levels, or flat when filtered; sorted; in pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt

from northbound.dashboard.words import BOUNDS, last_part
from northbound.views import BOUND_NAMES, LEVEL_NAMES, RUNG_NAMES
from planner.snapshot import Level, Pools

F64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

PAGE: Final = 50
#: Children shown below an opened pool; its own page has all of them.
BELOW: Final = 25
#: Up to so many groups, regions start open.
_OPEN_UP_TO: Final = 40
_UP, _DOWN = 0, 1
#: What columns are sorted by; all but names largest first. Direction is download: it is what people feel.
SORTS: Final = ("name", "offered", "forecast", "grant", "full")


@dataclass(frozen=True)
class Question:
    """What the reader asked to see; the page's address says it."""

    text: str = ""
    level: str = ""
    sort: str = "name"
    direction: str = "down"
    page: int = 1
    #: Paths that are not as they start: closed where they start open, and the reverse.
    turned: frozenset[str] = frozenset()

    @property
    def flat(self) -> bool:
        """Whether a list is asked for rather than a tree."""
        return bool(self.text or self.level)

    def url(self, base: str, **changes: Any) -> str:
        """The address of this question, somewhat changed. Defaults are left out."""
        asked = replace(self, **{"page": 1} | changes)
        pairs: list[tuple[str, Any]] = [
            (name, value)
            for name, value, default in (
                ("q", asked.text, ""),
                ("level", asked.level, ""),
                ("sort", asked.sort, "name"),
                ("by", asked.direction, "down"),
                ("page", asked.page, 1),
            )
            if value != default
        ]
        pairs += [("turn", path) for path in sorted(asked.turned)]
        return base + (f"?{urlencode(pairs)}" if pairs else "")

    def turn_url(self, base: str, path: str) -> str:
        """The address with one pool opened or closed."""
        return self.url(base, turned=self.turned ^ {path}, page=self.page)


@dataclass(frozen=True)
class Side:
    """One pool in one direction, bit/s; NaN: not known."""

    offered: float
    p50: float
    p90: float
    grant: float
    bound: str
    rung: str

    @property
    def known(self) -> bool:
        """Whether anything was measured."""
        return self.offered == self.offered


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    number: int
    path: str
    level: str
    depth: int
    sides: Mapping[str, Side]
    members: int
    #: None: nothing below it.
    open: bool | None = None
    #: Children that are not shown here.
    hidden: int = 0

    @property
    def name(self) -> str:
        """Among its siblings."""
        return last_part(self.path)

    @property
    def parents(self) -> str:
        """Where it is, for flat lists."""
        return self.path.rpartition("/")[0].replace("global/", "", 1).replace("global", "")


@dataclass(frozen=True)
class Table:
    """What is shown, and how much there is."""

    rows: list[Row] = field(default_factory=list)
    total: int = 0
    page: int = 1
    pages: int = 1


def whole_tree(pools: Pools, asked: Question) -> Table:
    """The tree from the root, or the list that the question filters out of it."""
    if not pools.path:
        return Table()
    if asked.flat:
        return _paged(pools, asked, _matching(pools, asked), depth=0)
    tree = _Tree(pools, asked)
    return Table(list(tree.lines(0, 0)), len(pools.path))


def children(pools: Pools, row: int, asked: Question) -> Table:
    """What is right below one pool."""
    below = np.flatnonzero(pools.parent == row)
    if asked.text:
        wanted = asked.text.casefold()
        below = np.array(
            [at for at in below.tolist() if wanted in last_part(pools.path[at]).casefold()], np.intp
        )
    return _paged(pools, asked, below, depth=0)


def _matching(pools: Pools, asked: Question) -> Rows:
    rows = np.arange(len(pools.path))
    if asked.level in LEVEL_NAMES:
        rows = np.flatnonzero(pools.level == LEVEL_NAMES.index(asked.level))
    if asked.text:
        wanted = asked.text.casefold()
        rows = np.array([row for row in rows.tolist() if wanted in pools.path[row].casefold()], np.intp)
        # A group's name is in its members' paths as well: those that go by the name come first.
        own = np.array([wanted in last_part(pools.path[row]).casefold() for row in rows.tolist()], bool)
        rows = rows[own] if own.any() else rows
    return rows


def _paged(pools: Pools, asked: Question, rows: Rows, depth: int) -> Table:
    total = len(rows)
    pages = max(1, -(-total // PAGE))
    page = min(max(asked.page, 1), pages)
    shown = _sorted(pools, asked, rows)[(page - 1) * PAGE : page * PAGE]
    return Table([_row(pools, int(row), depth) for row in shown], total, page, pages)


def _sorted(pools: Pools, asked: Question, rows: Rows) -> Rows:
    if asked.sort == "name" or asked.sort not in SORTS:
        return np.array(sorted(rows.tolist(), key=lambda row: pools.path[row]), np.intp)
    d = _UP if asked.direction == "up" else _DOWN
    with np.errstate(divide="ignore", invalid="ignore"):
        key = {
            "offered": pools.offered_bps[d, rows],
            "forecast": pools.p90_bps[d, rows],
            "grant": pools.grant_bps[d, rows],
            "full": pools.offered_bps[d, rows] / pools.grant_bps[d, rows],
        }[asked.sort]
    # What is not known comes last, whatever is asked for.
    sorted_rows: Rows = rows[np.argsort(np.where(np.isnan(key), np.inf, -key), kind="stable")]
    return sorted_rows


class _Tree:
    def __init__(self, pools: Pools, asked: Question) -> None:
        self.pools, self.asked = pools, asked
        order = np.argsort(pools.parent, kind="stable")
        starts = np.searchsorted(pools.parent[order], np.arange(len(pools.path) + 1))
        self._order, self._starts = order, starts
        groups = int((pools.level == Level.GROUP).sum())
        self._open_level = Level.REGION if groups <= _OPEN_UP_TO else Level.GLOBAL

    def below(self, row: int) -> Rows:
        found: Rows = self._order[self._starts[row] : self._starts[row + 1]]
        return found

    def lines(self, row: int, depth: int) -> Iterator[Row]:
        below = self.below(row)
        line = _row(self.pools, row, depth, len(below))
        if not len(below):
            yield line
            return
        starts_open = self.pools.level[row] <= self._open_level
        is_open = starts_open != (line.path in self.asked.turned)
        yield replace(line, open=is_open, hidden=max(0, len(below) - BELOW) if is_open else 0)
        if is_open:
            for child in _sorted(self.pools, self.asked, below)[:BELOW].tolist():
                yield from self.lines(child, depth + 1)


def _row(pools: Pools, row: int, depth: int, members: int | None = None) -> Row:
    if members is None:
        members = int((pools.parent == row).sum())
    return Row(
        number=row,
        path=pools.path[row],
        level=LEVEL_NAMES[pools.level[row]],
        depth=depth,
        sides=sides(pools, row),
        members=members,
    )


def sides(pools: Pools, row: int) -> dict[str, Side]:
    """Both directions, download first."""
    return {
        name: Side(
            offered=float(pools.offered_bps[d, row]),
            p50=float(pools.p50_bps[d, row]),
            p90=float(pools.p90_bps[d, row]),
            grant=float(pools.grant_bps[d, row]),
            bound=BOUNDS.get(BOUND_NAMES.get(int(pools.bound[d, row]), ""), ""),
            rung=RUNG_NAMES.get(int(pools.rung[d, row]), ""),
        )
        for name, d in (("down", _DOWN), ("up", _UP))
    }


def ancestors(path: str) -> Iterable[tuple[str, str]]:
    """Name and path of each pool from the root down to this one."""
    parts = path.split("/")
    return [(part, "/".join(parts[: at + 1])) for at, part in enumerate(parts)]
