"""``tidegate forecast``: one pool's demand ahead and how earlier forecasts of it did; or how all of them did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import RenderableType
from rich.table import Table

from northbound.cli_shared import FAILED, MISUSED, JsonOption, Remote, asks_planner, show, stop
from northbound.tables import MISSING, mbps, moment, named, shown, span


@asks_planner
def forecast(
    planner: Remote,
    pool: Annotated[
        str | None,
        typer.Argument(
            metavar="[POOL]", help="A pool's path, or the end of one: a user's id, say. None: how all do."
        ),
    ] = None,
    history_s: Annotated[float, typer.Option(min=1, help="Seconds of history.")] = 6 * 3600.0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it into this file (.png, .svg or .pdf).")
    ] = None,
    application: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Only this application class, of a user.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """One pool's demand ahead by quantile, and what was forecast before against what came.

    Without a pool: coverage by level and horizon, who forecasts what, and the score against persistence.
    """
    if pool is None:
        for given, option in ((plot, "--plot"), (application, "--application")):
            if given is not None:
                stop(MISUSED, f"tidegate: {option} needs a POOL")
        show(planner.get("/forecasts"), as_json, _quality)
        return
    query = {"history_s": history_s} | ({"application": application} if application is not None else {})
    answer = planner.get(f"/forecasts/{quote(pool)}", query)
    if plot is not None:
        # Here and not above: half a second that no other command has a use for.
        from northbound.forecast_plot import save

        try:
            save(answer, plot)
        except (OSError, ValueError) as error:
            stop(FAILED, f"tidegate: plot not written: {error}")
    show(answer, as_json, lambda answer: _parts(answer, plot))


def _parts(answer: dict[str, Any], plot: Path | None) -> Iterator[RenderableType]:
    yield f"{named(answer)}, forecast of {moment(answer['time'])}"
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
    if answer["applications"]:
        yield _applications(answer)
    for direction in ("up", "down"):
        for horizon in ("shortest", "longest"):
            yield _record(answer["issued"], direction, horizon)
    if plot is not None:
        yield f"plot: {plot}"


def _applications(answer: dict[str, Any]) -> Table:
    """Which class wants how much: at the shortest and the longest horizon, points and one high quantile."""
    high = f"p{answer['quantile'][-1] * 100:g}"
    table = Table(title="By application: points that add up, and a high quantile", title_justify="left")
    for name in ("application", "dir", "forecast by"):
        table.add_column(name)
    ends = (0, -1)
    for end in ends:
        table.add_column(span(answer["horizon_s"][end]), justify="right", no_wrap=True)
        table.add_column(high, justify="right", no_wrap=True)
    for one in answer["applications"]:
        for direction in ("up", "down"):
            made = one[direction]
            rates = [rate for end in ends for rate in (made["point_bps"][end], made["demand_bps"][end][-1])]
            table.add_row(one["application"], direction, shown(made["rung"]), *map(mbps, rates))
    return table


def _quality(answer: dict[str, Any]) -> Iterator[RenderableType]:
    levels, score = answer["quantile"], answer["live_score"]
    yield f"forecast of {moment(answer['time'])}"
    if score is None:
        yield "live score: too little has come due"
    else:
        gain = (
            "" if not score["persistence"] else f", {_percent(score['model'] / score['persistence'])} of it"
        )
        yield f"live score: model {score['model']:.4g}, persistence {score['persistence']:.4g}{gain}"
    aim = f"{_percent(levels[-1] - levels[0])} band"
    table = Table(title=f"Share of samples within the {aim}", title_justify="left")
    for name in ("level", "dir", "ahead"):
        table.add_column(name)
    for name in ("hour", "day", "samples"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in answer["coverage"]:
        table.add_row(
            row["level"], row["direction"], span(row["horizon_s"]), _band(row["hour"]), _band(row["day"]),
            str(row["n_day"]), "drifting" if row["drifting"] else "",
        )  # fmt: skip
    yield table
    table = Table(title="Who forecasts, and mean loss by contestant", title_justify="left")
    for name in ("level", "dir", "traffic", "ahead", "champion"):
        table.add_column(name)
    for name in ("model", "persistence", "recent"):
        table.add_column(name, justify="right")
    for row in answer["champions"]:
        losses = (row["loss"][name] for name in ("model", "persistence", "recent"))
        table.add_row(
            row["level"], row["direction"], row["traffic"], span(row["horizon_s"]), row["champion"],
            *(MISSING if loss is None else f"{loss:.4g}" for loss in losses),
        )  # fmt: skip
    yield table
    for row in answer["changes"][-10:]:
        yield (
            f"{moment(row['time'])} {row['level']} {row['direction']} {row['traffic']}, "
            f"{span(row['horizon_s'])} ahead: {row['before']} -> {row['after']}"
        )


def _band(share: list[float | None]) -> str:
    low, high = share[0], share[-1]
    return MISSING if low is None or high is None else _percent(high - low)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


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
