"""``tidegate pool``: one pool on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer
from rich.console import RenderableType
from rich.table import Table

from northbound.cli_completion import PoolArgument
from northbound.cli_quantities import seconds
from northbound.cli_shared import JsonOption, Remote, asks_planner, show
from northbound.tables import MISSING, mbps, moment, shown, span

_LEVELS: Final = "▁▂▃▄▅▆▇█"
_GAP: Final = "·"
_COLUMNS: Final = 60

HistoryOption = Annotated[
    str, typer.Option("--history", metavar="TIME", help="How far back: 30m, 6h; a day at most.")
]


@asks_planner
def pool(
    planner: Remote, pool: PoolArgument, history: HistoryOption = "1h", as_json: JsonOption = False
) -> None:
    """One pool: offered, forecast, grant and what bound it, its meters, and its recent past."""
    history_s = seconds(history, "--history")
    explanation = planner.get(f"/explain/{quote(pool)}")
    # Of a pool that is new nothing is forecast yet.
    forecast = planner.get(f"/forecasts/{quote(pool)}", {"history_s": history_s}, also=(404,))
    answer = {"explanation": explanation, "forecast": forecast if "issued" in forecast else None}
    show(answer, as_json, _parts)


def _parts(answer: dict[str, Any]) -> Iterator[RenderableType]:
    told, forecast = answer["explanation"], answer["forecast"]
    frozen = ", frozen" if told["frozen"] else ""
    yield (
        f"{told['path']} ({told['level']}), decided {moment(told['time'])}; "
        f"plan {told['plan_version']}, {told['mode']}{frozen}"
    )
    yield _now(told["directions"])
    for chain in told["directions"]:
        meters = (
            f"{one['dpid']} meter {one['meter_id']}: {shown(one['rate_kbps'])} kbit/s"
            for one in chain["meters"]
        )
        yield f"{chain['direction']:<4} bound by {_bound(chain['share'])}; {', '.join(meters) or 'no meter'}"
    if forecast is not None:
        issued = forecast["issued"]
        for direction in ("up", "down"):
            yield sparkline(f"{direction:<4} offered", *_past(issued, direction))
    yield f"tidegate explain {told['path']} says why, tidegate forecast {told['path']} what is expected"


def _now(chains: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Mbit/s of frames", title_justify="left")
    for name in ("dir", "offered", "delivered", "p50", "p90", "grant", "guarantee", "ceiling"):
        table.add_column(name, justify="left" if name == "dir" else "right", no_wrap=True)
    for name in ("weight", "priority", "forecast by", "asked for"):
        table.add_column(name, overflow="fold")
    for chain in chains:
        sample, ahead, share = chain["sample"], chain["forecast"], chain["share"]
        rates = (
            sample["offered_bps"], sample["delivered_bps"], ahead["p50_bps"], ahead["p90_bps"],
            share["grant_bps"], share["guarantee_bps"], share["ceiling_bps"],
        )  # fmt: skip
        texts = (f"{share['weight']:g}", str(share["priority"]), ahead["rung"], chain["tier"]["tier"])
        table.add_row(chain["direction"], *map(mbps, rates), *map(shown, texts))
    return table


def _bound(share: dict[str, Any]) -> str:
    return f"{share['bound']} of {share['bound_by']}" if share["bound_by"] else str(share["bound"])


def _past(issued: dict[str, Any], direction: str) -> tuple[list[float], list[float | None]]:
    """What came, without the steps that are still to come."""
    rates = issued["demand_bps"][direction]
    n = max((at + 1 for at, rate in enumerate(rates) if rate is not None), default=0)
    return issued["time"][:n], rates[:n]


def _lasted(seconds: float) -> str:
    return span(round(seconds) if seconds < 120 else 60 * round(seconds / 60))


def sparkline(name: str, time: Sequence[float | None], rates: Sequence[float | None]) -> str:
    """One line of blocks, at most sixty, each the highest of its steps: a dot is a gap, the lowest block 0."""
    known = [rate for rate in rates if rate is not None]
    if not known:
        return f"{name} {MISSING}"
    top = max(known)
    n = min(len(rates), _COLUMNS)
    line = ""
    for column in range(n):
        step = rates[column * len(rates) // n : (column + 1) * len(rates) // n]
        here = [rate for rate in step if rate is not None]
        level = 0 if not here or not top else min(int(max(here) / top * len(_LEVELS)), len(_LEVELS) - 1)
        line += _LEVELS[level] if here else _GAP
    first, last = time[0], time[-1]
    lasted = MISSING if first is None or last is None else _lasted(last - first)
    return f"{name} {line}  {mbps(min(known))} to {mbps(top)} Mbit/s in {lasted}"
