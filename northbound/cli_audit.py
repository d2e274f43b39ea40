"""``tidegate audit``: who did what, and whether the log of it is whole."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from northbound.cli_shared import FAILED, JsonOption, OwnFilesOption, console, faults_told, own_files, stop
from planner.audit import AuditError, AuditLog
from planner.audit import verify as verify_log
from planner.secret import SecretError

app = typer.Typer(
    name="audit",
    help="The audit log: every write and every automatic action.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FileOption = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="Another log, its key and head beside it.")
]


@app.command()
def verify(
    config: OwnFilesOption = None,
    file: FileOption = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="N:HASH", help="What an earlier verify printed: must still be in it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Whether nothing was changed, taken out, put in, moved or cut off. Exit status 1 if something was."""
    with _told():
        path = _path(config, file)
        verdict = verify_log(path, *_named(head))
    if as_json:
        print(
            json.dumps({"entries": verdict.entries, "head": verdict.head, "faults": verdict.faults}, indent=2)
        )
    else:
        for fault in verdict.faults:
            print(f"{path}: {fault}")
        if not verdict.faults:
            print(f"{path}: {verdict.entries} entries, whole; head {verdict.entries}:{verdict.head}")
    if verdict.faults:
        raise typer.Exit(FAILED)


@app.command()
def show(
    config: OwnFilesOption = None,
    file: FileOption = None,
    last: Annotated[int, typer.Option("-n", min=1, max=100_000, help="How many of the newest.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """The newest entries, oldest first. As JSON: one line an entry."""
    with _told():
        path = _path(config, file)
        if not path.exists():
            raise AuditError(f"{path} must be an audit log, got no such file")
        log = AuditLog(path)
        entries, total = log.page(0, 0)
        entries, total = log.page(max(0, total - last), last)
    if as_json:
        for entry in entries:
            print(json.dumps(entry))
        return
    console().print(_table(entries))
    console().print(f"{len(entries)} of {total}")


def _table(entries: Iterable[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("n", "time", "actor", "action", "target", "outcome"):
        table.add_column(heading, overflow="fold")
    for entry in entries:
        moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(entry["time"]))
        table.add_row(
            str(entry["n"]), moment, entry["actor"], entry["action"], entry["target"], entry["outcome"]
        )
    return table


def _path(config: Path | None, file: Path | None) -> Path:
    if file is not None:
        return file
    return own_files(config).audit_path


def _named(head: str | None) -> tuple[int, str] | tuple[()]:
    if head is None:
        return ()
    n, _, digest = head.partition(":")
    if not n.isdecimal() or not digest:
        raise AuditError(f"head must be like 12:HASH, got {head!r}")
    return int(n), digest


@contextmanager
def _told() -> Iterator[None]:
    with faults_told():
        try:
            yield
        except (AuditError, SecretError, OSError) as error:
            stop(FAILED, f"tidegate: {error}")
