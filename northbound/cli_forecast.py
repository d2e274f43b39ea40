"""``tidegate forecast``: one pool's demand ahead, and how earlier forecasts of it did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import RenderableType
from rich.table import Table

from northbound.cli_shared import FAILED, ConfigOption, JsonOption, UrlOption, get, show, stop
from northbound.tables import MISSING, mbps, moment, shown, span


def forecast(
    pool: Annotated[
        str, typer.Argument(metavar="POOL", help="A pool's path, or the end of one: a user's id, say.")
    ],
    url: UrlOption = None,
    config: ConfigOption = None,
    history_s: Annotated[float, typer.Option(min=1, help="Seconds of history.")] = 6 * 3600.0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it into this file (.png, .svg or .pdf).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """One pool's demand ahead by quantile, and what was forecast before against what came."""
    answer = get(url, config, f"/forecasts/{quote(pool)}", {"history_s": history_s})
    if plot is not None:
        # Here and not above: half a second that no other command has a use for.
        from northbound.forecast_plot import save

        try:
            save(answer, plot)
        except (OSError, ValueError) as error:
            stop(FAILED, f"tidegate: plot not written: {error}")
    show(answer, as_json, lambda answer: _parts(answer, plot))


def _parts(answer: dict[str, Any], plot: Path | None) -> Iterator[RenderableType]:
    yield f"{answer['path']}, forecast of {moment(answer['time'])}"
    table = Table(title="Mbit/s of frames", title_justify="left")
    for name in ("dir", "ahead", "forecast by"):
        table.add_column(name)
    for quantile in answer["quantile"]:
        table.add_column(f"p{quantile * 100:g}", justify="right", no_wrap=True)
    for direction in ("up", "down"):
        one = answer[direction]
        for horizon_s, rates in zip(answer["horizon_s"], one["demand_bps"], strict=True):
            table.add_row(direction, span(horizon_s), shown(one["rung"]), *map(mbps, rates))
    yield table
    for direction in ("up", "down"):
        for horizon in ("shortest", "longest"):
            yield _record(answer["issued"], direction, horizon)
    if plot is not None:
        yield f"plot: {plot}"


def _record(issued: dict[str, Any], direction: str, horizon: str) -> str:
    """How often what came lay within the outer quantiles that had been issued for it."""
    low, high = (issued[horizon][direction][end] for end in (0, -1))
    inside = [
        a <= came <= b
        for a, came, b in zip(low, issued["demand_bps"][direction], high, strict=True)
        if None not in {a, came, b}
    ]
    horizon_s = issued[horizon]["horizon_s"]
    ahead = MISSING if horizon_s is None else span(horizon_s)
    levels = issued["quantile"]
    if not inside:
        return f"{direction}, {ahead} ahead: nothing to compare yet"
    wanted = (levels[-1] - levels[0]) * 100
    share = 100 * sum(inside) / len(inside)
    return f"{direction}, {ahead} ahead: {share:.0f} % of {len(inside)} steps were within its {wanted:.0f} % interval"
