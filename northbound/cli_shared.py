"""What the commands share: asking the planner, drawing its answer, and ending with a line of why."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console, RenderableType

from northbound import client
from planner.config_faults import ConfigError

FAILED: Final = 1
MISUSED: Final = 2
#: Columns of a table that goes into a pipe or a file.
_PIPE_COLUMNS: Final = 200

ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The configuration file.")
]
UrlOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help=f"The planner's REST API; {client.DEFAULT_URL} if not given."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help=f"File with the token; {client.TOKEN_VARIABLE} or northbound.token_file if not given.",
    ),
]


def get(
    url: str | None,
    config: Path | None,
    path: str,
    query: dict[str, Any] | None = None,
    also: tuple[int, ...] = (),
    token_file: Path | None = None,
) -> dict[str, Any]:
    """What the planner answers; a fault ends the command."""
    with faults_told():
        where, token = client.base_url(url, config), client.token(token_file, config)
        return client.get(where, path, token, query, also, client.authority(config))


def post(url: str | None, config: Path | None, token_file: Path | None, path: str) -> dict[str, Any]:
    """What the planner answers to a write without a body; a fault ends the command."""
    return write(url, config, token_file, "POST", path)


def write(
    url: str | None,
    config: Path | None,
    token_file: Path | None,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What the planner answers to a write with a body; a fault ends the command."""
    with faults_told():
        where, token = client.base_url(url, config), client.token(token_file, config)
        return client.write(where, method, path, token, body, client.authority(config))


@contextmanager
def faults_told() -> Iterator[None]:
    """Make a fault one line on standard error and an exit status."""
    try:
        yield
    except ConfigError as error:
        stop(MISUSED, *error.faults)
    except client.NoAnswer as error:
        stop(FAILED, f"tidegate: {error}")


def stop(status_code: int, *lines: str) -> NoReturn:
    """End the command."""
    for line in lines:
        print(line, file=sys.stderr)
    raise typer.Exit(status_code)


def show(
    answer: dict[str, Any], as_json: bool, parts: Callable[[dict[str, Any]], Iterable[RenderableType]]
) -> None:
    """Print an answer as JSON, or what ``parts`` draws of it."""
    if as_json:
        print(json.dumps(answer, indent=2, allow_nan=False))
        return
    screen = console()
    for part in parts(answer):
        screen.print(part, soft_wrap=isinstance(part, str))


def console(stderr: bool = False) -> Console:
    """Where tables are drawn: as wide as the terminal, wide enough for a file."""
    # Markup is off: a name with brackets is a name.
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if made.is_terminal:
        return made
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=_PIPE_COLUMNS)
