"""What the demo shows while it runs: a table on a terminal, lines elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

#: Columns of a direction: heading, and key in an answer of ``GET /metrics/global``.
COLUMNS = (
    ("offered", "offered_bps"),
    ("p50", "p50_bps"),
    ("p90", "p90_bps"),
    ("grant", "grant_bps"),
    ("measured", "delivered_bps"),
)
_STYLES = {"global": "bold", "region": "bold cyan", "group": "green"}


def mbps(rate_bps: object) -> str:
    """A rate in Mbit/s for a table; a dash where nothing is known."""
    if not isinstance(rate_bps, int | float) or not math.isfinite(rate_bps):
        return "-"
    return f"{rate_bps / 1e6:.1f}"


def indented(path: str) -> str:
    """The last part of a pool's path, indented by its depth."""
    *above, name = path.split("/")
    return "  " * len(above) + name


def table(pools: Sequence[Mapping[str, Any]]) -> Table:
    """Every pool with its upload and download values, Mbit/s of frames."""
    result = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
    result.add_column("pool, Mbit/s", no_wrap=True)
    for arrow in ("↑", "↓"):
        for heading, _ in COLUMNS:
            result.add_column(f"{arrow}{heading}", justify="right", no_wrap=True)
    for pool in pools:
        values = [mbps(pool[side].get(key)) for side in ("up", "down") for _, key in COLUMNS]
        result.add_row(indented(pool["path"]), *values, style=_STYLES.get(pool["level"]))
    return result


def screen(status: str, pools: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The live view: one line of status, then the table."""
    return Group(Text(status, style="bold"), table(pools)) if pools else Text(status, style="bold")


def plain(status: str, pools: Sequence[Mapping[str, Any]]) -> list[str]:
    """The live view as lines: the status, then regions and groups."""
    lines = [status]
    for pool in pools:
        if pool["level"] == "user":
            continue
        sides = []
        for side, arrow in (("up", "up"), ("down", "down")):
            values = " ".join(f"{heading} {mbps(pool[side].get(key))}" for heading, key in COLUMNS)
            sides.append(f"{arrow}: {values}")
        lines.append(f"  {indented(pool['path']):<18} {' | '.join(sides)}")
    return lines
