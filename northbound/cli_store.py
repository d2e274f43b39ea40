"""``tidegate store``: what is in the store, whether it is whole, copies for others. The planner must be stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.filesize import decimal
from rich.table import Table

from northbound.cli_exit import Exit
from northbound.cli_quantities import since_s
from northbound.cli_shared import (
    FAILED,
    MISUSED,
    ConfigOption,
    JsonOption,
    examples,
    faults_told,
    progress,
    show,
    stop,
)
from northbound.tables import MISSING, moment

if TYPE_CHECKING:
    from northbound.cli_store_file import Facts, Progress
    from telemetry.keys import StoreKey

app = typer.Typer(
    name="store",
    help="The store of measurements, while no planner holds it: info, check, export, compact.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=examples(
        "store info --config config/demo.yaml",
        "store export week.parquet --since 1w",
        "store compact",
    ),
)

FileOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="Another store; its key is looked for as the planner does."),
]
_Result = TypeVar("_Result")


class TableName(StrEnum):
    """Tables of measurements."""

    SAMPLES = "samples"
    ROLLUPS = "rollups"


class Format(StrEnum):
    """Formats of an export."""

    PARQUET = "parquet"
    CSV = "csv"


@app.command(epilog=examples("store info --config config/demo.yaml", "store info --json"))
def info(config: ConfigOption = None, file: FileOption = None, as_json: JsonOption = False) -> None:
    """Where it is, how large, how many rows of when, and how fast it grows."""
    from northbound.cli_store_file import facts

    with _told():
        found = facts(*_place(config, file))
    show({**asdict(found), "path": str(found.path)}, as_json, lambda _: _drawn(found))


@app.command(epilog=examples("store check --config config/demo.yaml"))
def check(config: ConfigOption = None, file: FileOption = None, as_json: JsonOption = False) -> None:
    """Whether all of it can be read and agrees with itself. Exit status 1 if not."""
    from northbound.cli_store_check import check as check_file

    with _told():
        path, key = _place(config, file)
        faults = _with_bar("check", lambda tell: check_file(path, key, time.time(), tell))
    told = [f"{path}: {fault}" for fault in faults] or [f"{path}: whole"]
    show({"path": str(path), "ok": not faults, "faults": faults}, as_json, lambda _: told)
    if faults:
        raise typer.Exit(FAILED)


@app.command(
    epilog=examples(
        "store export week.parquet --since 1w",
        "store export day.csv --table rollups --since 2026-11-20T00:00 --until 2026-11-21T00:00",
    )
)
def export(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Written anew; NOT encrypted.")],
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="From so long ago (24h), or a date and time.")
    ] = "24h",
    until: Annotated[str, typer.Option(metavar="WHEN", help="Up to then; now if not given.")] = "",
    table: Annotated[
        TableName,
        typer.Option(help="samples: as measured; rollups: means of minutes, which are kept longer."),
    ] = TableName.SAMPLES,
    form: Annotated[
        Format | None, typer.Option("--format", help="By the file's suffix if not given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also over a file that is there.")] = False,
    config: ConfigOption = None,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write measurements as Parquet or CSV: time, series, direction, rate_bps, seconds, censored.

    The names of users are in it, and it is not encrypted: it is made its owner's alone.
    """
    from northbound.cli_store_file import export as export_file

    now = time.time()
    # The second that has begun is not left out.
    begin, end = since_s(since, "--since", now), since_s(until, "--until", now) if until else now + 1
    if begin >= end:
        stop(MISUSED, f"tidegate: --since must be before --until, got {moment(begin)} and {moment(end)}")
    form = _format(target, form)
    if target.exists() and not force:
        stop(FAILED, f"tidegate: {target} must not be there yet, or give --force")
    span = (int(begin), int(end))
    with _told():
        path, key = _place(config, file)
        rows = _with_bar(
            "export", lambda tell: export_file(path, key, table.value, span, target, form.value, tell)
        )
    answer = {"file": str(target), "rows": rows, "table": table.value, "since": span[0], "until": span[1]}
    show(answer, as_json, lambda _: [f"{target}: {rows} rows, not encrypted"])


@app.command(epilog=examples("store compact --config config/demo.yaml"))
def compact(config: ConfigOption = None, file: FileOption = None, as_json: JsonOption = False) -> None:
    """Write it anew without the room that expired rows left. The old one stays until the new one is whole."""
    from northbound.cli_store_file import compact as compact_file

    with _told():
        path, key = _place(config, file)
        before, after = _with_bar("compact", lambda tell: compact_file(path, key, tell))
    answer = {"path": str(path), "bytes_before": before, "bytes_after": after}
    show(answer, as_json, lambda _: [f"{path}: {decimal(before)} before, {decimal(after)} now"])


def _format(target: Path, form: Format | None) -> Format:
    if form is not None:
        return form
    try:
        return Format(target.suffix.removeprefix("."))
    except ValueError:
        stop(MISUSED, f"tidegate: FILE must end in .parquet or .csv, or give --format, got {str(target)!r}")


def _place(config: Path | None, file: Path | None) -> tuple[Path, StoreKey]:
    """The file and its key, found as the planner finds them; nothing is made."""
    # Here and not above: what the other commands have no use for.
    from planner.config import Store as Settings
    from planner.config import load
    from planner.process import store_key
    from telemetry.encrypted import StoreError

    settings = load(config).store if config is not None else Settings()
    if file is not None:
        settings = settings.model_copy(update={"path": file})
    if not settings.path.is_file():
        raise StoreError(f"store {settings.path} must be a file, got none: give --config or --file")
    return settings.path, store_key(settings)


@contextmanager
def _told() -> Iterator[None]:
    from telemetry.encrypted import StoreBusyError, StoreError
    from telemetry.keys import StoreKeyError

    with faults_told():
        try:
            yield
        except StoreBusyError as error:
            stop(Exit.REFUSED, f"tidegate: {error}")
        except (StoreError, StoreKeyError, OSError) as error:
            stop(FAILED, f"tidegate: {error}")


def _with_bar(name: str, work: Callable[[Progress], _Result]) -> _Result:
    with progress() as bar:
        task = bar.add_task(name, total=None)
        return work(lambda done, total: bar.update(task, completed=done, total=total))


def _drawn(found: Facts) -> Iterator[Any]:
    log = f" and {decimal(found.wal_bytes)} of log" if found.wal_bytes else ""
    yield f"{found.path}: {decimal(found.size_bytes)}{log}, {decimal(found.free_bytes)} of it free; {found.series} series"
    table = Table(title="measurements", title_justify="left")
    for name in ("table", "rows", "oldest", "newest", "rows an hour"):
        table.add_column(name, justify="left" if name == "table" else "right", no_wrap=True)
    for name, one in found.tables.items():
        rate = MISSING if one.rows_per_hour is None else f"{one.rows_per_hour:,.0f}"
        table.add_row(name, f"{one.rows:,}", moment(one.oldest), moment(one.newest), rate)
    yield table
    state = ", ".join(f"{name} {decimal(size)}" for name, size in found.state.items())
    yield f"the planner's state: {state or 'none'}"
