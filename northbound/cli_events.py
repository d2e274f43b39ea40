"""``tidegate events``: what is announced; announce, import a calendar, take back."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from northbound import tables
from northbound.cli_completion import event_ids, scopes
from northbound.cli_quantities import epoch_s
from northbound.cli_shared import (
    FAILED,
    MISUSED,
    JsonOption,
    LimitOption,
    OffsetOption,
    Remote,
    asks_planner,
    examples,
    lists,
    show,
    show_page,
    stop,
)
from northbound.tables import moment
from planner.config_fields import NAME_PATTERN

#: More than any planner takes; what is larger is not read whole.
_MOST_BYTES: Final = 64 << 20

app = typer.Typer(
    name="events",
    help="What is announced and expected of it; announce, import a calendar, take back.",
    invoke_without_command=True,
    rich_markup_mode=None,
    epilog=examples(
        "events",
        "events import season.ics --kind match --scope west --dry-run",
        "events announce open-day --kind visit --start 2026-11-28T09:00 --end 2026-11-28T17:00",
        "events withdraw season",
    ),
)

KindOption = Annotated[str, typer.Option(metavar="TAG", help="Events of one kind are taken to be alike.")]
ScopeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="POOL",
        help="A pool concerned: west, west/lab, group:NAME, user:NAME; everybody if not given.",
        autocompletion=scopes,
    ),
]
UpliftOption = Annotated[
    float | None, typer.Option(metavar="X", help="The factor on demand that you expect, 0.02 to 50.")
]


@app.callback()
@asks_planner
def events(planner: Remote, context: typer.Context, as_json: JsonOption = False) -> None:
    """What is announced and expected of it; announce, import a calendar, take back."""
    if lists(context, as_json):
        _list(planner, as_json)


@app.command("list", epilog=examples("events list --limit 100 --offset 200"))
@asks_planner
def list_events(
    planner: Remote, limit: LimitOption = 1000, offset: OffsetOption = 0, as_json: JsonOption = False
) -> None:
    """What is announced, what it is expected to do to demand, and how the feeds are."""
    _list(planner, as_json, {"limit": limit, "offset": offset})


def _list(planner: Remote, as_json: bool, query: dict[str, Any] | None = None) -> None:
    show_page(planner, "/events", query, as_json, tables.events, "events")


@app.command(
    "import",
    epilog=examples(
        "events import season.ics --kind match --scope west --dry-run",
        "events import - --name season < season.ics",
    ),
)
@asks_planner
def import_calendar(
    planner: Remote,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An iCalendar file; - for standard input.")],
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="What is imported again under it is replaced; the file's name if not given."
        ),
    ] = "",
    kind: KindOption = "event",
    scope: ScopeOption = None,
    expected_uplift: UpliftOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Announce a whole calendar: all of it or nothing, in place of an earlier import of its name.

    Kind, scope and uplift are for entries that do not say it themselves.
    """
    given = name or file.stem
    if not re.fullmatch(NAME_PATTERN, given):
        stop(MISUSED, f"tidegate: --name must be letters, digits and . _ @ - (63 at most), got {given!r}")
    query: dict[str, Any] = {"name": given, "kind": kind, "scope": scope or []}
    if expected_uplift is not None:
        query["expected_uplift"] = expected_uplift
    if dry_run:
        query["dryRun"] = "true"
    answer = planner.send("POST", "/events/import", _content(file), "text/calendar", query)
    show(answer, as_json, _imported)


@app.command(
    epilog=examples(
        "events announce open-day --kind visit --start 2026-11-28T09:00 --end 2026-11-28T17:00 --scope west",
    )
)
@asks_planner
def announce(
    planner: Remote,
    event_id: Annotated[str, typer.Argument(metavar="ID", help="Its id: letters, digits and . _ @ -")],
    kind: KindOption,
    start: Annotated[str, typer.Option(metavar="WHEN", help="A date and time, in this machine's zone.")],
    end: Annotated[str, typer.Option(metavar="WHEN", help="Its end, in the same way.")],
    scope: ScopeOption = None,
    expected_uplift: UpliftOption = None,
    summary: Annotated[str, typer.Option(metavar="TEXT", help="For people.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Announce one event."""
    body = {
        "id": event_id,
        "kind": kind,
        "start": epoch_s(start, "--start"),
        "end": epoch_s(end, "--end"),
        "scope": scope or [],
        "expected_uplift": expected_uplift,
        "summary": summary,
    }
    show(planner.write("POST", "/events", body), as_json, lambda made: [f"announced: {_line(made)}"])


@app.command(epilog=examples("events withdraw open-day", "events withdraw season"))
@asks_planner
def withdraw(
    planner: Remote,
    event_id: Annotated[
        str,
        typer.Argument(metavar="ID", help="An event's id, or an import's name.", autocompletion=event_ids),
    ],
) -> None:
    """Take back what was announced here: one event, or all of an import by its name."""
    planner.write("DELETE", f"/events/{quote(event_id)}")
    print(f"{event_id} is withdrawn")


def _content(file: Path) -> bytes:
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(_MOST_BYTES)
        with file.open("rb") as opened:
            return opened.read(_MOST_BYTES)
    except OSError as error:
        stop(FAILED, f"tidegate: calendar not read: {error}")


def _imported(answer: dict[str, Any]) -> Iterator[str]:
    would = "nothing was changed; it would be " if answer["dry_run"] else ""
    yield (
        f"{answer['name']}: {would}{answer['n_events']} events up to {moment(answer['until'])}: {answer['n_new']} new, "
        f"{answer['n_changed']} changed; {answer['n_removed']} of the earlier import removed"
    )
    if answer["n_outside"]:
        yield f"{answer['n_outside']} occurrences left out: over, or later than that"
    for event in answer["events"]:
        yield f"  {_line(event)}"
    if len(answer["events"]) < answer["n_events"]:
        yield f"  and {answer['n_events'] - len(answer['events'])} more"


def _line(event: dict[str, Any]) -> str:
    return f"{event['id']}, {moment(event['start'])} to {moment(event['end'])}"
