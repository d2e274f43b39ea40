"""``tidegate model``: which forecasting model is in use, and back to an earlier one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table

from northbound.cli_shared import JsonOption, Remote, asks_planner, examples, show
from northbound.tables import MISSING, moment, shown

app = typer.Typer(
    name="model",
    help="The forecasting models.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=examples("model list", "model show 3", "model rollback 3"),
)

Version = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The model's version.")]


@app.command("list", epilog=examples("model list", "model list --json"))
@asks_planner
def list_models(planner: Remote, as_json: JsonOption = False) -> None:
    """The models on record, which is in use, and what changed that."""
    show(planner.get("/models"), as_json, _all)


@app.command("show", epilog=examples("model show 3"))
@asks_planner
def show_model(planner: Remote, version: Version, as_json: JsonOption = False) -> None:
    """One model: when and on what it was trained, how it scored, what became of it."""
    show(planner.get(f"/models/{version}"), as_json, _one)


@app.command(epilog=examples("model rollback 3"))
@asks_planner
def rollback(
    planner: Remote,
    version: Version,
    as_json: JsonOption = False,
) -> None:
    """Put an earlier model to use and hold it until `release`; the one in use is held where it is."""
    show(planner.write("POST", f"/models/{version}/rollback"), as_json, _all)


@app.command(epilog=examples("model release"))
@asks_planner
def release(
    planner: Remote,
    as_json: JsonOption = False,
) -> None:
    """Let newer models be promoted again."""
    show(planner.write("POST", "/models/release"), as_json, _all)


def _all(answer: dict[str, Any]) -> Iterator[RenderableType]:
    yield _in_use(answer)
    yield _versions(answer["versions"])
    changes = Table(title="changes, newest first", title_justify="left")
    for name in ("when", "what", "version", "before", "reason"):
        changes.add_column(name, overflow="fold")
    for row in answer["changes"]:
        texts = (row["what"], row["version"], row["before"], row["reason"])
        changes.add_row(moment(row["time"]), *map(shown, texts))
    yield changes


def _in_use(answer: dict[str, Any]) -> str:
    if answer["champion"] is None:
        return "no model is in use: simpler forecasts serve"
    line = f"version {answer['champion']} is in use"
    if answer["held"]:
        until = answer["held_until"]
        line += ", held until " + (moment(until) if until else "`tidegate model release`")
    elif answer["on_trial_since"]:
        line += f", on trial since {moment(answer['on_trial_since'])}"
    return line


def _versions(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="models; scores are pinball loss, smaller is better", title_justify="left")
    for name in ("version", "model", "outcome", "kept", "trained"):
        table.add_column(name)
    for name in ("rows", "score", "champion's", "persistence's"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        version = f"{row['version']} (in use)" if row["in_use"] else str(row["version"])
        scores = (_score(row[f"{name}_score"]) for name in ("challenger", "champion", "persistence"))
        table.add_row(
            version,
            row["kind"],
            row["outcome"],
            shown(row["kept"]),
            moment(row["trained_at"]),
            str(row["n_rows"]),
            *scores,
        )
    return table


def _one(row: dict[str, Any]) -> Iterator[RenderableType]:
    yield _versions([row])
    yield f"{row['outcome']}: {row['reason']}"
    yield f"trained on {row['n_rows']} rows until {moment(row['trained_until'])}; contest of {row['contest_rows']} rows"
    yield f"kept: {shown(row['kept'])}, {row['body_bytes']} bytes"


def _score(score: float | None) -> str:
    return MISSING if score is None else f"{score:.4f}"
