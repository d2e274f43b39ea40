"""``tidegate plan``, ``mode``, ``freeze``, ``unfreeze``, ``revert`` and ``explain``: which plan stands, and why."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import RenderableType
from rich.table import Table

from northbound import tables
from northbound.cli_completion import PoolArgument
from northbound.cli_shared import (
    JsonOption,
    LimitOption,
    OffsetOption,
    Remote,
    asks_planner,
    examples,
    lists,
    page_line,
    show,
)
from northbound.tables import moment, shown

app = typer.Typer(
    name="plan",
    help="The meters that each switch shall hold, and earlier plans.",
    invoke_without_command=True,
    rich_markup_mode=None,
    epilog=examples("plan", "plan show --switch 0000000000000011", "plan history"),
)

ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; goes into the log.")]


class ModeName(StrEnum):
    """Modes, as the command line takes them."""

    LIVE = "live"
    CANARY = "canary"
    SHADOW = "shadow"


@app.callback()
@asks_planner
def plan(planner: Remote, context: typer.Context, as_json: JsonOption = False) -> None:
    """The meters that each switch shall hold, and earlier plans."""
    if lists(context, as_json):
        _show(planner.get("/plan"), as_json)


@app.command("show", epilog=examples("plan show --switch 11 --pool anna"))
@asks_planner
def show_plan(
    planner: Remote,
    switch: Annotated[str, typer.Option(metavar="DPID", help="Only this switch; leading zeros may go.")] = "",
    pool: Annotated[
        str, typer.Option(metavar="TEXT", help="Only meters whose pool has this in its path.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """The newest plan, or a part of it."""
    answer = planner.get("/plan")
    answer["switches"] = {
        dpid: {**one, "meters": [meter for meter in one["meters"] if pool in (meter["pool"] or "")]}
        for dpid, one in answer["switches"].items()
        if not switch or dpid == switch.removeprefix("0x").lower().rjust(16, "0")
    }
    _show(answer, as_json)


def _show(answer: dict[str, Any], as_json: bool) -> None:
    show(answer, as_json, lambda answer: [tables.plan(answer)])


@app.command(epilog=examples("plan diff", "plan diff 40", "plan diff 40 41 --json"))
@asks_planner
def diff(
    planner: Remote,
    before: Annotated[
        int | None,
        typer.Argument(metavar="[FROM]", min=0, help="A kept plan; the one before TO if not given."),
    ] = None,
    after: Annotated[
        int | None, typer.Argument(metavar="[TO]", min=0, help="Another; the published one if not given.")
    ] = None,
    limit: LimitOption = 1000,
    offset: OffsetOption = 0,
    as_json: JsonOption = False,
) -> None:
    """The meters that differ between two plans, the largest change first."""
    query: dict[str, Any] = {"limit": limit, "offset": offset}
    query |= {name: value for name, value in (("from", before), ("to", after)) if value is not None}
    show(planner.get("/plan/diff", query), as_json, _differences)


@app.command(epilog=examples("plan history", "revert 41"))
@asks_planner
def history(planner: Remote, as_json: JsonOption = False) -> None:
    """Which plan stands, and the kept ones that `tidegate revert` can go back to."""
    show(planner.get("/plan/state"), as_json, _state)


@asks_planner
def freeze(planner: Remote, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Let the published plan stand; new ones are made and shown, and not published."""
    show(planner.write("POST", "/plan/freeze", {"reason": reason}), as_json, _state)


@asks_planner
def unfreeze(planner: Remote, as_json: JsonOption = False) -> None:
    """Publish new plans again."""
    show(planner.write("POST", "/plan/unfreeze"), as_json, _state)


@asks_planner
def revert(
    planner: Remote,
    version: Annotated[
        int | None,
        typer.Argument(metavar="[VERSION]", min=1, help="A kept plan; the one before if not given."),
    ] = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Publish an earlier plan again, and freeze it."""
    body = {"version": version, "reason": reason}
    show(planner.write("POST", "/plan/revert", body), as_json, _state)


@asks_planner
def mode(
    planner: Remote,
    new: Annotated[ModeName | None, typer.Argument(metavar="[MODE]", help="live, canary or shadow.")] = None,
    region: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A region that goes first.")
    ] = None,
    share: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Of the regions, instead.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Which plan stands, and what one can go back to; with MODE, change what is published."""
    if new is None:
        show(planner.get("/plan/state"), as_json, _state)
        return
    body = {"mode": new.value, "regions": region or [], "share": share}
    show(planner.write("PUT", "/plan/mode", body), as_json, _state)


@asks_planner
def explain(planner: Remote, pool: PoolArgument, as_json: JsonOption = False) -> None:
    """Why a pool has what it has, from the sample to the meters."""
    show(planner.get(f"/explain/{quote(pool)}"), as_json, _explained)


def _differences(answer: dict[str, Any]) -> Iterator[RenderableType]:
    old, new = answer["before"], answer["after"]
    title = (
        f"plan {old['version']} of {moment(old['time'])} to {new['version']} of {moment(new['time'])}, kbit/s"
    )
    table = Table(title=title, title_justify="left")
    for name in ("dpid", "pool", "dir"):
        table.add_column(name, overflow="fold")
    for name in ("meter", "before", "after", "change", "burst kbit"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in answer["changes"]:
        was, is_ = row["before_kbps"], row["after_kbps"]
        change = "new" if was is None else "gone" if is_ is None else f"{is_ - was:+d}"
        bursts = [shown(row[f"{name}_burst_kbit"]) for name in ("before", "after")]
        burst = bursts[0] if bursts[0] == bursts[1] else " to ".join(bursts)
        texts = (row["dpid"], shown(row["pool"]), shown(row["direction"]))
        table.add_row(*texts, str(row["meter_id"]), shown(was), shown(is_), change, burst)
    yield table
    yield from page_line(answer, "changes")
    yield f"{answer['total']} of {new['meters']} meters differ"


def _state(answer: dict[str, Any]) -> Iterator[RenderableType]:
    line = f"mode {answer['mode']}"
    if answer["regions"]:
        line += f" in {', '.join(answer['regions'])}"
    if answer["frozen"]:
        line += f", frozen since {moment(answer['since'])}"
    if answer["reason"]:
        line += f": {answer['reason']}"
    yield line
    for name in ("published", "proposed"):
        yield f"{name}: plan {answer[name]['version']} of {moment(answer[name]['time'])}"
    if answer["stale"]:
        yield "the published plan is stale: the loop stands still, and switches keep what they have"
    table = Table(title="kept plans, newest first", title_justify="left")
    for name in ("version", "decided"):
        table.add_column(name)
    for row in answer["kept"]:
        table.add_row(str(row["version"]), moment(row["time"]))
    yield table


def _explained(answer: dict[str, Any]) -> Iterator[RenderableType]:
    frozen = ", frozen" if answer["frozen"] else ""
    yield (
        f"{answer['path']} ({answer['level']}), decided {moment(answer['time'])}; "
        f"plan {answer['plan_version']}, {answer['mode']}{frozen}"
    )
    for chain in answer["directions"]:
        yield f"{chain['direction']}:"
        for line in chain["text"]:
            yield f"  {line}"
