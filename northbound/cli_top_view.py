"""What ``tidegate top`` shows: which pools, in which order, and what each key changes. No terminal here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
DIRECTIONS: Final = ("up", "down")
LEVELS: Final = (None, "region", "group", "user")


class Order(StrEnum):
    """By what pools are sorted."""

    TREE = "tree"
    OFFERED = "offered"
    GRANT = "grant"
    SHORT = "short"
    USE = "use"
    NAME = "name"


class Shown(StrEnum):
    """Which directions are shown."""

    BOTH = "both"
    UP = "up"
    DOWN = "down"

    @property
    def directions(self) -> tuple[str, ...]:
        """Their names."""
        return DIRECTIONS if self is Shown.BOTH else (self.value,)


@dataclass(frozen=True)
class View:
    """What an operator chose to see."""

    order: Order = Order.TREE
    level: str | None = None
    text: str = ""
    shown: Shown = Shown.BOTH
    offset: int = 0
    paused: bool = False
    #: What is being typed as the next ``text``; None: nothing is.
    typing: str | None = None

    @property
    def indented(self) -> bool:
        """Whether pools are drawn as a tree, by their last names."""
        return self.order is Order.TREE and self.level is None and not self.text


def short_bps(one: Mapping[str, Any]) -> float | None:
    """How much more was offered than granted; None where that is not known."""
    offered, grant = one["offered_bps"], one["grant_bps"]
    return None if offered is None or grant is None else max(0, offered - grant)


def use(one: Mapping[str, Any]) -> float | None:
    """What was offered as a share of the grant; None where that is not known, or nothing is granted."""
    offered, grant = one["offered_bps"], one["grant_bps"]
    return None if offered is None or not grant else offered / grant


_FIGURES: Final[dict[Order, Callable[[Mapping[str, Any]], float | None]]] = {
    Order.OFFERED: lambda one: one["offered_bps"],
    Order.GRANT: lambda one: one["grant_bps"],
    Order.SHORT: short_bps,
    Order.USE: use,
}


def chosen(pools: Sequence[dict[str, Any]], view: View) -> list[dict[str, Any]]:
    """The pools that a view has, in its order: the largest first, what is not known last."""
    found = [
        pool
        for pool in pools
        if (view.level is None or pool["level"] == view.level) and view.text.lower() in pool["path"].lower()
    ]
    if view.order is Order.TREE:
        return sorted(found, key=lambda pool: pool["path"].split("/"))
    if view.order is Order.NAME:
        return sorted(found, key=lambda pool: pool["path"].rpartition("/")[2])
    figure = _FIGURES[view.order]

    def rank(pool: dict[str, Any]) -> tuple[float, str]:
        # The direction that has more of it decides.
        known = (figure(pool[direction]) for direction in view.shown.directions)
        return -max((value for value in known if value is not None), default=-1.0), pool["path"]

    return sorted(found, key=rank)


def after_key(view: View, key: str, n_rows: int, page: int) -> View | None:
    """The view after a key, with ``page`` of ``n_rows`` rows on the screen; None: the operator leaves."""
    if view.typing is not None:
        return _typed(view, view.typing, key)
    if key in ("q", "Q", "escape"):
        return None
    last = max(0, n_rows - page)
    moves = {
        "up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "b": -page, "page down": page, " ": page,
        "home": -n_rows, "g": -n_rows, "end": n_rows, "G": n_rows,
    }  # fmt: skip
    if key in moves:
        return replace(view, offset=min(max(0, min(view.offset, last) + moves[key]), last))
    if key == "s":
        return replace(view, order=_next(tuple(Order), view.order), offset=0)
    if key == "l":
        return replace(view, level=_next(LEVELS, view.level), offset=0)
    if key == "d":
        return replace(view, shown=_next(tuple(Shown), view.shown))
    if key == "p":
        return replace(view, paused=not view.paused)
    if key == "/":
        return replace(view, typing=view.text)
    return view


def _typed(view: View, typing: str, key: str) -> View:
    if key == "escape":
        return replace(view, typing=None)
    if key == "enter":
        return replace(view, text=typing, typing=None, offset=0)
    if key == "backspace":
        return replace(view, typing=typing[:-1])
    return replace(view, typing=typing + key) if len(key) == 1 and key.isprintable() else view


def _next(of: Sequence[_T], one: _T) -> _T:
    return of[(of.index(one) + 1) % len(of)]
