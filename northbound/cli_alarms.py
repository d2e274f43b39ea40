"""``tidegate alarms``: what the forecast did not foresee, once or as it comes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table

from northbound.cli_shared import JsonOption, Remote, asks_planner, show
from northbound.tables import moment, shown

#: Seconds between two questions of ``--follow``.
FOLLOW_S = 2.0


@asks_planner
def alarms(
    planner: Remote,
    only_open: Annotated[bool, typer.Option("--open", help="Only alarms that are open.")] = False,
    pool: Annotated[
        str | None, typer.Option(metavar="PATH", help="Only this pool and what is below it.")
    ] = None,
    follow_on: Annotated[
        bool, typer.Option("--follow", help="Go on with every change, a line each.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What came that the forecast did not foresee, with its evidence."""
    query: dict[str, Any] = {"open": True} if only_open else {}
    if pool is not None:
        query["pool"] = pool

    def ask(since: int) -> dict[str, Any]:
        return planner.get("/alarms", {**query, "since": since})

    if not follow_on:
        show(_whole(ask), as_json, parts)
        return
    try:
        follow(ask, as_json, time.sleep)
    except KeyboardInterrupt:
        # Ctrl-C is how one stops following.
        return


def _whole(ask: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """All pages as one answer."""
    answer = ask(0)
    found = list(answer["alarms"])
    while answer["alarms"] and answer["sequence"] > 0:
        page = ask(answer["sequence"])
        if not page["alarms"] or page["sequence"] <= answer["sequence"]:
            break
        found += page["alarms"]
        answer = page
    # One that changed between two pages is on both: its newer state counts.
    newest = {alarm["id"]: alarm for alarm in found}
    return {**answer, "alarms": list(newest.values())}


def follow(ask: Callable[[int], dict[str, Any]], as_json: bool, pause: Callable[[float], None]) -> None:
    """Print every change, for ever; with ``as_json`` one object a line."""
    since = 0
    while True:
        answer = ask(since)
        for alarm in answer["alarms"]:
            print(json.dumps(alarm, allow_nan=False) if as_json else line(alarm), flush=True)
        if not answer["complete"] and since:
            print("changes in between were forgotten", flush=True)
        more = bool(answer["alarms"]) and answer["sequence"] > since
        since = answer["sequence"]
        if not more:
            pause(FOLLOW_S)


def line(alarm: dict[str, Any]) -> str:
    """One change of one alarm."""
    state = "open" if alarm["closed"] is None else f"closed ({alarm['reason']})"
    seen = "" if alarm["acknowledged"] is None else ", acknowledged"
    return f"{moment(alarm['updated'])} {alarm['id']} {alarm['severity']} {state}{seen}: {alarm['text']}"


def parts(answer: dict[str, Any]) -> Iterator[RenderableType]:
    """The table, and how the stream stands."""
    table = Table(title="alarms, oldest change first", title_justify="left")
    for name in ("id", "since", "state", "severity", "kind", "what"):
        table.add_column(name, overflow="fold")
    for alarm in answer["alarms"]:
        state = "open" if alarm["closed"] is None else alarm["reason"]
        if alarm["acknowledged"] is not None:
            state += ", acknowledged"
        if alarm["times"] > 1:
            state += f", {alarm['times']} times"
        texts = (state, alarm["severity"], alarm["kind"], alarm["text"])
        table.add_row(str(alarm["id"]), moment(alarm["since"]), *map(shown, texts))
    yield table
    yield (
        f"{answer['open']} open, {answer['unacknowledged']} of them not acknowledged; "
        f"{answer['held_back']} held back"
    )
