"""What the commands share: the planner that they ask, drawing its answer, and ending with a line of why."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Concatenate, Final, NoReturn, ParamSpec

import typer
from rich.console import Console, RenderableType
from rich.progress import Progress

from northbound import client
from northbound.cli_exit import Exit
from planner.config import load
from planner.config_faults import ConfigError
from planner.config_northbound import Northbound

FAILED: Final = Exit.FAILED
MISUSED: Final = Exit.MISUSED
#: Columns of a table that goes into a pipe or a file.
_PIPE_COLUMNS: Final = 200
_Own = ParamSpec("_Own")

JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
LimitOption = Annotated[int, typer.Option(min=1, max=10_000, help="Entries on the page.")]
OffsetOption = Annotated[int, typer.Option(min=0, help="Entries before the page.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The configuration file.")
]
#: Of commands that read the planner's own files and ask nobody.
OwnFilesOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The planner's configuration; var/ here if not given."),
]
_UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help=f"The planner's REST API; {client.DEFAULT_URL} if not given."),
]
_TokenOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help=f"File with the token; {client.TOKEN_VARIABLE} or northbound.token_file if not given.",
    ),
]
_OPTIONS: Final = {"url": _UrlOption, "config": ConfigOption, "token_file": _TokenOption}


@dataclass(frozen=True)
class Remote:
    """The running planner that a command asks. What goes wrong ends the command, except in ``ask``."""

    url: str | None = None
    config: Path | None = None
    token_file: Path | None = None

    def get(
        self, path: str, query: dict[str, Any] | None = None, also: tuple[int, ...] = ()
    ) -> dict[str, Any]:
        """What the planner answers; errors with a status in ``also`` are answers too."""
        with faults_told():
            return self.ask(path, query, also)

    def write(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the planner answers to a write; nothing where it answers nothing."""
        with faults_told():
            where, token_path, ca = self._place
            return client.write(where, method, path, client.token(token_path), body, ca)

    def send(
        self, method: str, path: str, content: bytes, media_type: str, query: dict[str, Any]
    ) -> dict[str, Any]:
        """The same with a body that is no JSON."""
        with faults_told():
            where, token_path, ca = self._place
            return client.send(where, method, path, client.token(token_path), content, media_type, query, ca)

    def ask(
        self,
        path: str,
        query: dict[str, Any] | None = None,
        also: tuple[int, ...] = (),
        timeout_s: float = client.TIMEOUT_S,
    ) -> dict[str, Any]:
        """The same as ``get``. Raises ConfigError, NoAnswer."""
        where, token_path, ca = self._place
        # The token is read each time: it may be rotated while a command goes on asking.
        return client.get(where, path, client.token(token_path), query, also, ca, timeout_s)

    @functools.cached_property
    def _place(self) -> tuple[str, Path, Path | None]:
        """Address, token file and certificate: the configuration is read once."""
        where = client.base_url(self.url, self.config)
        return where, client.token_path(self.token_file, self.config), client.authority(self.config)


def asks_planner(command: Callable[Concatenate[Remote, _Own], None]) -> Callable[..., None]:
    """Give a command ``--url``, ``--config`` and ``--token-file``; it gets the planner that they name."""
    signature = inspect.signature(command, eval_str=True)
    _, *own = signature.parameters.values()
    wants_context = "context" in signature.parameters
    added: dict[str, tuple[Any, Any]] = {name: (annotation, None) for name, annotation in _OPTIONS.items()}
    if not wants_context:
        added["context"] = (typer.Context, inspect.Parameter.empty)
    by_name = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        *(parameter.replace(kind=by_name) for parameter in own),
        *(
            inspect.Parameter(name, by_name, default=default, annotation=annotation)
            for name, (annotation, default) in added.items()
        ),
    ]

    @functools.wraps(command)
    def asking(**given: Any) -> None:
        context = given["context"] if wants_context else given.pop("context")
        named = {name: given.pop(name) for name in _OPTIONS}
        # What stands before a sub-command holds for it too.
        before = context.find_object(Remote) or Remote()
        remote = replace(before, **{name: value for name, value in named.items() if value is not None})
        context.obj = remote
        command(remote, **given)  # type: ignore[call-arg]  # by name, which ParamSpec cannot say

    # What Typer reads in place of the command's own.
    asking.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    asking.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return asking


def own_files(config: Path | None) -> Northbound:
    """Where the planner of this configuration, or of none, keeps its tokens and its log. Raises ConfigError."""
    return load(config).northbound if config is not None else Northbound()


def lists(context: typer.Context, as_json: bool) -> bool:
    """Whether a command stands without a sub-command, and so lists what there is."""
    if context.invoked_subcommand is not None and as_json:
        stop(MISUSED, f"tidegate: --json must stand after {context.invoked_subcommand}")
    return context.invoked_subcommand is None


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  tidegate {line}" for line in lines)


def progress() -> Progress:
    """Bars for long work: on standard error, and only on a terminal."""
    return Progress(console=console(stderr=True), disable=not sys.stderr.isatty())


@contextmanager
def faults_told() -> Iterator[None]:
    """Make a fault one line on standard error and an exit status."""
    try:
        yield
    except ConfigError as error:
        stop(MISUSED, *error.faults)
    except client.NoAnswer as error:
        stop(error.status, *(f"tidegate: {line}" for line in error.args))


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


def show_page(
    planner: Remote,
    path: str,
    query: dict[str, Any] | None,
    as_json: bool,
    parts: Callable[[dict[str, Any]], Iterable[RenderableType]],
    name: str,
) -> None:
    """Show one page of a list, and below it which of the entries in ``name`` these are."""

    def with_line(answer: dict[str, Any]) -> Iterator[RenderableType]:
        yield from parts(answer)
        yield from page_line(answer, name)

    show(planner.get(path, query), as_json, with_line)


def page_line(answer: dict[str, Any], name: str) -> Iterator[str]:
    """Which entries of a list these are, where they are not all."""
    shown = len(answer[name])
    if shown < answer["total"]:
        first = answer["offset"] + 1 if shown else 0
        yield f"{name} {first} to {answer['offset'] + shown} of {answer['total']}"


def console(stderr: bool = False) -> Console:
    """Where tables are drawn: as wide as the terminal, wide enough for a file."""
    # Markup is off: a name with brackets is a name.
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if made.is_terminal:
        return made
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=_PIPE_COLUMNS)
