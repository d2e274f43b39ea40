"""``tidegate completion``, and the names that a running planner completes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

# Typer means it for others, and does not say so to mypy.
from typer.completion import get_completion_script  # type: ignore[attr-defined]

from northbound.cli_shared import Remote
from northbound.client import NoAnswer
from planner.config_faults import ConfigError

#: A key press must not hang: without an answer by then nothing is completed.
TIMEOUT_S: Final = 1.0
_MOST_POOLS: Final = 10_000
_KINDS: Final = ("region", "group", "user")


class Shell(StrEnum):
    """Shells that complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """Print what makes a shell complete commands, options, pools and groups."""
    # Its argument is the name of a shell; none is started.
    script = get_completion_script(
        prog_name="tidegate",
        complete_var="_TIDEGATE_COMPLETE",
        shell=shell.value,  # nosec B604
    )
    print(script)


def _remote(context: typer.Context) -> Remote:
    """The planner of the options typed so far: while completing, nothing but them was read."""
    given = {name: value for name, value in context.params.items() if value is not None}
    if context.parent is not None:
        given = {**context.parent.params, **given}
    files = {name: Path(given[name]) for name in ("config", "token_file") if given.get(name)}
    return Remote(given.get("url"), files.get("config"), files.get("token_file"))


def _asked(context: typer.Context, path: str, query: dict[str, Any] | None = None) -> dict[str, Any] | None:
    try:
        return _remote(context).ask(path, query, timeout_s=TIMEOUT_S)
    except (ConfigError, NoAnswer):
        return None


def _pools(context: typer.Context) -> list[dict[str, Any]]:
    answer = _asked(context, "/metrics/global", {"limit": _MOST_POOLS})
    return [] if answer is None else answer["pools"]


def _completing(find: Callable[[typer.Context], Iterable[str]]) -> Callable[[typer.Context, str], list[str]]:
    def complete(context: typer.Context, incomplete: str) -> list[str]:
        return sorted({name for name in find(context) if name.startswith(incomplete)})

    return complete


@_completing
def pool_paths(context: typer.Context) -> Iterable[str]:
    """Paths of pools, and the names that end them."""
    paths = [pool["path"] for pool in _pools(context)]
    return [*paths, *(path.rpartition("/")[2] for path in paths)]


@_completing
def named_pools(context: typer.Context) -> Iterable[str]:
    """Pools as ``user:NAME``."""
    pools = _pools(context)
    return [f"{one['level']}:{one['path'].rpartition('/')[2]}" for one in pools if one["level"] in _KINDS]


@_completing
def scopes(context: typer.Context) -> Iterable[str]:
    """Pools as events name them: a region by its name, ``group:NAME``, ``user:NAME``."""
    named = [(one["level"], one["path"].rpartition("/")[2]) for one in _pools(context)]
    return [name if level == "region" else f"{level}:{name}" for level, name in named if level in _KINDS]


@_completing
def group_ids(context: typer.Context) -> Iterable[str]:
    """Ids of groups."""
    answer = _asked(context, "/groups")
    return [] if answer is None else [group["id"] for group in answer["groups"]]


@_completing
def user_ids(context: typer.Context) -> Iterable[str]:
    """Ids of users."""
    return [one["path"].rpartition("/")[2] for one in _pools(context) if one["level"] == "user"]


@_completing
def boost_ids(context: typer.Context) -> Iterable[str]:
    """Ids of boosts."""
    answer = _asked(context, "/boosts")
    return [] if answer is None else [boost["id"] for boost in answer["boosts"]]


@_completing
def event_ids(context: typer.Context) -> Iterable[str]:
    """Ids of events that were announced here, and names of imports."""
    answer = _asked(context, "/events")
    own = [] if answer is None else [event["id"] for event in answer["events"] if event["source"] == "rest"]
    return [*own, *(one.partition("/")[0] for one in own)]


PoolArgument = Annotated[
    str,
    typer.Argument(
        metavar="POOL", help="A path such as global/west/lab, or its end.", autocompletion=pool_paths
    ),
]
