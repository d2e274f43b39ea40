"""A group as a picture: its members in a ring, and who of them talks to whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from markupsafe import Markup

from northbound.dashboard.figures import Scale

#: More names than fit around a ring are left out, the quietest first.
MOST: Final = 40
_WIDTH: Final = 640.0
_HEIGHT: Final = 400.0
_WIDEST: Final = 9.0


def drawn(members: Sequence[str], talk: Mapping[tuple[str, str], float], scale: Scale) -> Markup | None:
    """The picture; None where nobody talks to anybody."""
    if not talk:
        return None
    rate_of = dict.fromkeys(members, 0.0)
    for pair, rate in talk.items():
        for name in pair:
            rate_of[name] = rate_of.get(name, 0.0) + rate
    shown = sorted(sorted(rate_of, key=lambda name: -rate_of[name])[:MOST])
    place = dict(zip(shown, _ring(len(shown)), strict=True))
    most = max(talk.values())
    edges = [
        _edge(place[one], place[other], f"{one} and {other}: {scale.plain(rate)}", rate / most)
        for (one, other), rate in sorted(talk.items(), key=lambda item: item[1])
        if one in place and other in place
    ]
    nodes = [_node(name, place[name]) for name in shown]
    told = f"{len(talk)} pairs of {len(rate_of)} members talk to one another"
    return Markup(
        '<svg class="graph" viewBox="0 0 640 400" role="img" aria-label="{0}"><title>{0}</title>{1}{2}</svg>'
    ).format(told, Markup("").join(edges), Markup("").join(nodes))


def _ring(count: int) -> list[tuple[float, float]]:
    across, up = _WIDTH / 2, _HEIGHT / 2
    turns = [2 * math.pi * at / max(count, 1) - math.pi / 2 for at in range(count)]
    return [(across + 0.62 * across * math.cos(turn), up + 0.78 * up * math.sin(turn)) for turn in turns]


def _edge(one: tuple[float, float], other: tuple[float, float], told: str, share: float) -> Markup:
    # The square root: of two edges, one of a hundredth of the other's rate is still seen.
    width = max(1.0, _WIDEST * math.sqrt(share))
    ends = [f"{part:.0f}" for part in (*one, *other)]
    line = Markup(
        '<line class="edge" x1="{}" y1="{}" x2="{}" y2="{}" stroke-width="{}"><title>{}</title></line>'
    )
    return line.format(*ends, f"{width:.1f}", told)


def _node(name: str, at: tuple[float, float]) -> Markup:
    x, y = at
    below = y > _HEIGHT / 2
    label = y + 22 if below else y - 13
    return Markup('<circle class="node" cx="{0}" cy="{1}" r="7"/><text x="{0}" y="{2}">{3}</text>').format(
        f"{x:.0f}", f"{y:.0f}", f"{label:.0f}", name
    )
