"""The small bar in a table's cell: what is offered, and what is forecast, against the grant."""

from __future__ import annotations

import math
from typing import Final

from markupsafe import Markup

from northbound.dashboard.figures import Scale
from northbound.dashboard.tree import Side

#: The grant stands here; what is beyond is more than the grant.
_GRANT_AT: Final = 100.0
_WIDTH: Final = 130.0


def bar(side: Side, scale: Scale) -> Markup:
    """A fill for what is offered, a band from p50 to p90 of the forecast, a mark at the grant."""
    if not side.known:
        label, shapes = "no data", '<rect class="gap" x="0" y="0" width="130" height="16"/>'
    else:
        label = (
            f"offered {scale.plain(side.offered)}, forecast {scale.plain(side.p50)} to "
            f"{scale.plain(side.p90)}, grant {scale.plain(side.grant)}"
        )
        offered, low, high = (_at(rate, side.grant) for rate in (side.offered, side.p50, side.p90))
        # All of it beyond the end: the end shows that there is something.
        low = min(low, _WIDTH - 4)
        over = " over" if side.offered > side.grant * 1.005 else ""
        shapes = (
            f'<rect class="track" x="0" y="6" width="{_GRANT_AT:g}" height="4"/>'
            f'<rect class="fan" x="{low:.1f}" y="3" width="{max(high - low, 1.5):.1f}" height="10"/>'
            f'<rect class="fill{over}" x="0" y="6" width="{max(offered, 1.0):.1f}" height="4"/>'
            f'<rect class="mark" x="{_GRANT_AT - 1:g}" y="1" width="2" height="14"/>'
        )
    return Markup(
        '<svg class="bar" viewBox="0 0 130 16" preserveAspectRatio="none" role="img" aria-label="{0}">'
        "<title>{0}</title>{1}</svg>"
    ).format(label, Markup(shapes))  # noqa: S704 - numbers and names of ours only


def _at(rate: float, grant: float) -> float:
    if math.isnan(rate):
        return 0.0
    return min(rate / grant * _GRANT_AT, _WIDTH) if grant > 0 else (_WIDTH if rate > 0 else 0.0)
