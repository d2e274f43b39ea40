"""``tidegate policy test``, ``freeze``, ``unfreeze``, ``revert``, ``mode``, ``boosts``, ``standbys`` and ``explain``."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import RenderableType
from rich.table import Table

from northbound.cli_shared import (
    FAILED,
    ConfigOption,
    JsonOption,
    TokenOption,
    UrlOption,
    faults_told,
    get,
    show,
    write,
)
from northbound.tables import MISSING, moment
from planner.config import load
from planner.policies_file import CaseResult, load_policies, policies_for, run_cases

app = typer.Typer(name="policy", help="Policy files.", no_args_is_help=True, rich_markup_mode=None)

ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; goes into the log.")]


class ModeName(StrEnum):
    """Modes, as the command line takes them."""

    LIVE = "live"
    CANARY = "canary"
    SHADOW = "shadow"


# Without this a single command would be the group itself.
@app.callback()
def policy() -> None:
    """Policy files."""


@app.command("test")
def run_policy_cases(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy file.")],
    config: ConfigOption = None,
) -> None:
    """Run the cases of a policy file. Exit status 1 if one fails, or if there is none."""
    with faults_told():
        found = load_policies(file)
        loaded = None if config is None else load(config)
        if loaded is not None:
            policies_for(loaded, file)
        results = run_cases(found, loaded)
    for result in results:
        print("\n".join(_case_lines(result)))
    failed = sum(not result.passed for result in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    if failed or not results:
        raise typer.Exit(FAILED)


def _case_lines(result: CaseResult) -> Iterator[str]:
    """What a reader of a diff expects: - what was wanted, + what is."""
    yield f"{'ok  ' if result.passed else 'FAIL'} {result.name}"
    told = ""
    for pool, expected, found in result.differences:
        if pool != told:
            yield f"  {pool}"
            told = pool
        yield f"    - {expected}"
        yield f"    + {found}"


def freeze(
    reason: ReasonOption = "",
    url: UrlOption = None,
    config: ConfigOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the published plan stand; new ones are made and shown, and not published."""
    answer = write(url, config, token_file, "POST", "/plan/freeze", {"reason": reason})
    show(answer, as_json, _state)


def unfreeze(
    url: UrlOption = None,
    config: ConfigOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish new plans again."""
    show(write(url, config, token_file, "POST", "/plan/unfreeze"), as_json, _state)


def revert(
    version: Annotated[
        int | None,
        typer.Argument(metavar="[VERSION]", min=1, help="A kept plan; the one before if not given."),
    ] = None,
    reason: ReasonOption = "",
    url: UrlOption = None,
    config: ConfigOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish an earlier plan again, and freeze it."""
    body = {"version": version, "reason": reason}
    show(write(url, config, token_file, "POST", "/plan/revert", body), as_json, _state)


def mode(
    new: Annotated[ModeName | None, typer.Argument(metavar="[MODE]", help="live, canary or shadow.")] = None,
    region: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A region that goes first.")
    ] = None,
    share: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Of the regions, instead.")] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which plan stands, and what one can go back to; with MODE, change what is published."""
    if new is None:
        show(get(url, config, "/plan/state"), as_json, _state)
        return
    body = {"mode": new.value, "regions": region or [], "share": share}
    show(write(url, config, token_file, "PUT", "/plan/mode", body), as_json, _state)


def boosts(url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Temporary boosts that are on or still to come."""
    show(get(url, config, "/boosts"), as_json, _boosts)


def standbys(url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """For whom capacity is kept on a doubtful forecast, and what became of earlier ones."""
    show(get(url, config, "/standbys"), as_json, _standbys)


def explain(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="A path such as global/west/lab, or its end.")],
    url: UrlOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why a pool has what it has, from the sample to the meters."""
    show(get(url, config, f"/explain/{quote(pool)}"), as_json, _explained)


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
    yield f"{answer['made']} made, {answer['activated']} activated, {answer['expired']} expired since the start"


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


def _rates(pair: dict[str, Any] | None) -> str:
    if pair is None:
        return MISSING
    up, down = (MISSING if pair[name] is None else f"{pair[name] / 1e6:g}" for name in ("up", "down"))
    return up if up == down else f"{up}/{down}"
