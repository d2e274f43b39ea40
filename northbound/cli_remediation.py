"""``tidegate remediation``: what is congested, what is done about it, why, and whether it helped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table

from northbound.cli_shared import JsonOption, Remote, asks_planner, examples, show
from northbound.tables import MISSING, moment, shown

app = typer.Typer(
    name="remediation",
    help="What is done about congestion and anomalies.",
    invoke_without_command=True,
    rich_markup_mode=None,
    epilog=examples("remediation --limit 50", "remediation undo 7"),
)


@app.callback()
@asks_planner
def remediation(
    planner: Remote,
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Steps, the newest ones.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """What is congested, what is done about it, why, and whether it helped."""
    if context.invoked_subcommand is None:
        show(planner.get("/remediation", {"limit": limit}), as_json, parts)


@app.command(epilog=examples("remediation undo 7"))
@asks_planner
def undo(
    planner: Remote,
    step: Annotated[int, typer.Argument(metavar="ID", min=1, help="A step that is in force.")],
    as_json: JsonOption = False,
) -> None:
    """Take back a step that is in force."""
    answer = planner.write("POST", f"/remediation/{step}/undo")
    show(answer, as_json, lambda one: [_steps([one])])


@app.command(epilog=examples("remediation isolations"))
@asks_planner
def isolations(planner: Remote, as_json: JsonOption = False) -> None:
    """Who is cut off, why, and for how long."""
    show(planner.get("/isolations"), as_json, lambda answer: [isolated(answer)])


@app.command(epilog=examples("remediation webhooks --dead"))
@asks_planner
def webhooks(
    planner: Remote,
    dead: Annotated[bool, typer.Option("--dead", help="What could not be delivered.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Who is told of what happens, and how deliveries go."""
    if dead:
        show(planner.get("/webhooks/dead-letters"), as_json, lambda answer: [dead_letters(answer)])
    else:
        show(planner.get("/webhooks"), as_json, lambda answer: [hooks(answer)])


def parts(answer: dict[str, Any]) -> Iterator[RenderableType]:
    """How it stands, what is congested, and the record."""
    acting = "" if answer["acting"] else "; nothing is done now: the plan is frozen or not live"
    yield f"congestion: {answer['congestion_mode']}, isolation: {answer['isolation_mode']}{acting}"
    if answer["troubles"]:
        table = _table("congested or lately so", "place", "direction", "signal", "now", "rungs tried")
        for one in answer["troubles"]:
            now = MISSING if one["value"] is None else f"{one['value']:.3g}"
            table.add_row(shown(one["place"]), one["direction"], one["kind"], now, str(one["climbed"]))
        yield table
    yield _steps(answer["steps"])
    yield f"{answer['in_force']} in force"


def _steps(steps: list[dict[str, Any]]) -> Table:
    table = _table("steps, oldest first", "id", "when", "step", "stands", "helped", "what", "why")
    for one in steps:
        helped = {True: "yes", False: "no", None: MISSING}[one["helped"]]
        stands = one["standing"] + (f": {one['reason']}" if one["reason"] else "")
        table.add_row(
            str(one["id"]), moment(one["time"]), one["rung"], shown(stands), helped, shown(one["text"]),
            shown(one["why"]),
        )  # fmt: skip
    return table


def isolated(answer: dict[str, Any]) -> Table:
    """Who is cut off."""
    table = _table("isolated users", "user", "step", "ends in s", "what", "why")
    for one in answer["isolations"]:
        step = one["step"]
        table.add_row(
            shown(one["user"]),
            str(step["id"]),
            f"{one['remaining_s']:.0f}",
            shown(step["text"]),
            shown(step["why"]),
        )
    return table


def hooks(answer: dict[str, Any]) -> Table:
    """How deliveries go."""
    table = _table("webhooks", "number", "address", "events", "waiting", "delivered", "dead", "last fault")
    for one in answer["webhooks"]:
        events = ", ".join(one["events"]) or "everything"
        figures = (str(one[name]) for name in ("waiting", "delivered", "dead"))
        table.add_row(str(one["number"]), shown(one["address"]), events, *figures, shown(one["error"]))
    return table


def dead_letters(answer: dict[str, Any]) -> Table:
    """What was given up."""
    table = _table("dead letters, oldest first", "id", "webhook", "event", "given up", "tries", "why")
    for one in answer["dead_letters"]:
        table.add_row(
            one["id"], str(one["webhook"]), one["event"], moment(one["given_up"]), str(one["attempts"]),
            shown(one["error"]),
        )  # fmt: skip
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table
