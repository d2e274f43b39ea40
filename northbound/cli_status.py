"""``tidegate status``: whether all is well, on one screen and in the exit status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer
from rich.console import RenderableType

from northbound import tables
from northbound.cli_shared import FAILED, JsonOption, Remote, asks_planner, show
from northbound.tables import MISSING, moment

_FORBIDDEN = 403


@asks_planner
def status(planner: Remote, as_json: JsonOption = False) -> None:
    """Whether all is well: the loop, the plan, switches, alarms and coverage.

    Exit status 1 if the planner is not ok (starting, degraded, stalled), 3 if none answers.
    """
    answer = {
        "health": planner.get("/health", also=(503,)),
        **planner.get("/switches"),
        "plan": _allowed(planner, "/plan/state"),
        "alarms": _only(_allowed(planner, "/alarms", {"open": True, "limit": 1}), "open", "unacknowledged"),
        "forecasts": _only(_allowed(planner, "/forecasts"), "time", "quantile", "coverage"),
    }
    show(answer, as_json, _parts)
    if answer["health"]["status"] != "ok":
        raise typer.Exit(FAILED)


def _allowed(planner: Remote, path: str, query: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """The answer; None where the token is of one region or group, and this is everybody's."""
    answer = planner.get(path, query, also=(_FORBIDDEN,))
    return None if answer.get("status") == _FORBIDDEN else answer


def _only(answer: dict[str, Any] | None, *names: str) -> dict[str, Any] | None:
    return None if answer is None else {name: answer[name] for name in names}


def _parts(answer: dict[str, Any]) -> Iterator[RenderableType]:
    yield from tables.health(answer["health"])
    yield f"plan: {plan_line(answer['plan'])}"
    yield f"switches: {in_step(answer['switches'])}"
    yield f"alarms: {alarm_line(answer['alarms'])}"
    yield from _coverage(answer["forecasts"])
    yield tables.switches(answer)


def plan_line(state: Mapping[str, Any] | None) -> str:
    """Which plan stands, and how."""
    if state is None:
        return "not shown to this token"
    published = state["published"]
    line = f"{published['version']} of {moment(published['time'])}, {state['mode']}"
    if state["regions"]:
        line += f" in {', '.join(state['regions'])}"
    if state["frozen"]:
        line += f", FROZEN since {moment(state['since'])}"
    if state["stale"]:
        line += ", STALE: switches keep what they have"
    return line + (f" ({state['reason']})" if state["reason"] else "")


def in_step(switches: Sequence[Mapping[str, Any]]) -> str:
    """How many switches hold what the plan says; those of no region have no part in it."""
    planned = [switch for switch in switches if switch["region"] is not None]
    equal = sum(switch["in_step"] is True for switch in planned)
    away = sum(not switch["connected"] for switch in switches)
    return f"{equal} of {len(planned)} in step" + (f", {away} away" if away else "")


def alarm_line(alarms: Mapping[str, Any] | None) -> str:
    """How many are open."""
    if alarms is None:
        return "not shown to this token"
    return f"{alarms['open']} open" + (
        f", {alarms['unacknowledged']} not acknowledged" if alarms["unacknowledged"] else ""
    )


def _coverage(quality: dict[str, Any] | None) -> Iterator[str]:
    """The share within the outermost band over the last day, by level: means, weighted by samples."""
    if quality is None or not quality["coverage"]:
        return
    levels = quality["quantile"]
    told = []
    for level in dict.fromkeys(row["level"] for row in quality["coverage"]):
        rows = [row for row in quality["coverage"] if row["level"] == level]
        known = [row for row in rows if None not in (row["day"][0], row["day"][-1]) and row["n_day"]]
        weight = sum(row["n_day"] for row in known)
        inside = sum((row["day"][-1] - row["day"][0]) * row["n_day"] for row in known)
        share = f"{inside / weight:.0%}" if weight else MISSING
        told.append(f"{level} {share}" + (" (drifting)" if any(row["drifting"] for row in rows) else ""))
    yield f"coverage of the {levels[-1] - levels[0]:.0%} band, last day: {', '.join(told)}"
