"""``tidegate archetypes``: what kinds of users there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from northbound.tables import MISSING


def archetypes(answer: dict[str, Any]) -> Iterator[RenderableType]:
    """One row an archetype."""
    table = Table(title="archetypes", title_justify="left")
    for name in ("id", "archetype", "by rule", "level", "direction"):
        table.add_column(name, overflow="fold")
    for name in ("share", "members", "rate", "burstiness", "idle", "entropy"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in answer["archetypes"]:
        centre = row["centre"]
        figures = [
            _figure(centre.get(name)) for name in ("relative_rate", "burstiness", "idle_share", "entropy")
        ]
        table.add_row(
            str(row["id"]),
            row["name"],
            row["rule_name"],
            row["level"],
            row["direction"],
            f"{row['share']:.0%}",
            str(row["members"]),
            *figures,
        )
    yield table
    yield "rate: of the middle member, in units of the median of its level"


def _figure(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"
