"""``tidegate boost``: more for some pools, for a time; and for whom capacity stands by."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import RenderableType
from rich.table import Table

from northbound.cli_completion import boost_ids, named_pools
from northbound.cli_quantities import RATE_HELP, epoch_s, rate_mbps, seconds
from northbound.cli_shared import (
    MISUSED,
    JsonOption,
    LimitOption,
    OffsetOption,
    Remote,
    asks_planner,
    examples,
    lists,
    page_line,
    show,
    show_page,
    stop,
)
from northbound.tables import MISSING, moment

app = typer.Typer(
    name="boost",
    help="Temporary boosts: those that are on or still to come; create and end them.",
    invoke_without_command=True,
    rich_markup_mode=None,
    epilog=examples("boost", "boost create user:anna --for 2h --guarantee 5/20", "boost end b1"),
)


@app.callback()
@asks_planner
def boost(planner: Remote, context: typer.Context, as_json: JsonOption = False) -> None:
    """Temporary boosts: those that are on or still to come; create and end them."""
    if lists(context, as_json):
        boosts(planner, as_json)


@app.command("list", epilog=examples("boost list --json"))
@asks_planner
def list_boosts(
    planner: Remote, limit: LimitOption = 1000, offset: OffsetOption = 0, as_json: JsonOption = False
) -> None:
    """Temporary boosts that are on or still to come, by their end."""
    boosts(planner, as_json, {"limit": limit, "offset": offset})


@app.command(
    epilog=examples(
        "boost create user:anna --for 2h --guarantee 5/20 --reason 'live broadcast'",
        "boost create group:studio region:west --start 2026-12-24T18:00 --until 2026-12-24T23:00 --weight-factor 2",
    )
)
@asks_planner
def create(
    planner: Remote,
    pools: Annotated[
        list[str],
        typer.Argument(
            metavar="POOL", help="user:NAME, group:NAME or region:NAME.", autocompletion=named_pools
        ),
    ],
    lasting: Annotated[str, typer.Option("--for", metavar="TIME", help="How long: 90s, 30m, 2h, 1d.")] = "",
    until: Annotated[
        str, typer.Option(metavar="WHEN", help="Its end instead: a date and time, in this machine's zone.")
    ] = "",
    start: Annotated[str, typer.Option(metavar="WHEN", help="Its beginning; now if not given.")] = "",
    guarantee: Annotated[str, typer.Option(metavar="RATE", help=f"At least this; {RATE_HELP}.")] = "",
    ceiling: Annotated[
        str, typer.Option(metavar="RATE", help="At least this ceiling; in the same way.")
    ] = "",
    weight_factor: Annotated[float, typer.Option(min=1.0, help="Times the weight.")] = 1.0,
    priority: Annotated[
        int | None, typer.Option(min=0, help="This class or an earlier one; 0 is served first.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; goes into the log.")] = "",
    boost_id: Annotated[
        str, typer.Option("--id", metavar="ID", help="Its name; one is made if not given.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Give pools more for a time: a guarantee, a ceiling, a weight or a priority. It ends by itself."""
    if bool(lasting) == bool(until):
        stop(MISUSED, "tidegate: one of --for and --until must be given")
    begin = epoch_s(start, "--start") if start else None
    if until:
        end = epoch_s(until, "--until")
    else:
        end = (time.time() if begin is None else begin) + seconds(lasting, "--for")
    body = {
        "id": boost_id or None,
        "pools": pools,
        "start": begin,
        "end": end,
        "reason": reason,
        "guarantee_mbps": rate_mbps(guarantee, "--guarantee"),
        "ceiling_mbps": rate_mbps(ceiling, "--ceiling"),
        "weight_factor": weight_factor,
        "priority": priority,
    }
    show(planner.write("POST", "/boosts", body), as_json, lambda made: _boosts({"boosts": [made]}))


@app.command(epilog=examples("boost end b1"))
@asks_planner
def end(
    planner: Remote,
    boost_id: Annotated[str, typer.Argument(metavar="ID", help="A boost's id.", autocompletion=boost_ids)],
) -> None:
    """End a boost now."""
    planner.write("DELETE", f"/boosts/{quote(boost_id, safe='')}")
    print(f"{boost_id} has ended")


def boosts(planner: Remote, as_json: bool, query: dict[str, Any] | None = None) -> None:
    """Show what ``GET /boosts`` answers."""
    show_page(planner, "/boosts", query, as_json, _boosts, "boosts")


@asks_planner
def standbys(
    planner: Remote, limit: LimitOption = 1000, offset: OffsetOption = 0, as_json: JsonOption = False
) -> None:
    """For whom capacity is kept on a doubtful forecast, and what became of earlier ones."""
    show(planner.get("/standbys", {"limit": limit, "offset": offset}), as_json, _standbys)


def _boosts(answer: dict[str, Any]) -> Iterator[RenderableType]:
    table = Table()
    for name in ("id", "pools", "from", "until", "guarantee", "ceiling", "weight", "priority", "reason"):
        table.add_column(name, overflow="fold")
    for row in answer["boosts"]:
        table.add_row(
            row["id"],
            ", ".join(row["pools"]),
            moment(row["start"]),
            moment(row["end"]),
            _rates(row["guarantee_bps"]),
            _rates(row["ceiling_bps"]),
            f"x {row['weight_factor']:g}",
            MISSING if row["priority"] is None else str(row["priority"]),
            row["reason"],
        )
    yield table


def _standbys(answer: dict[str, Any]) -> Iterator[RenderableType]:
    table = Table()
    for name in ("owner", "parent", "direction", "phase", "kept Mbit/s", "until"):
        table.add_column(name, overflow="fold")
    for row in answer["standbys"]:
        texts = (row["owner"], row["parent"], row["direction"], row["phase"])
        table.add_row(*texts, f"{row['kept_bps'] / 1e6:.4g}", moment(row["until"]))
    yield table
    yield from page_line(answer, "standbys")
    yield f"{answer['made']} made, {answer['activated']} activated, {answer['expired']} expired since the start"


def _rates(pair: dict[str, Any] | None) -> str:
    if pair is None:
        return MISSING
    up, down = (MISSING if pair[name] is None else f"{pair[name] / 1e6:g}" for name in ("up", "down"))
    return up if up == down else f"{up}/{down}"
