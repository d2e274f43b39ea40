"""The ``tidegate`` command; ``cli_exit`` says how it ends."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from northbound import (
    cli_archetypes,
    cli_audit,
    cli_boost,
    cli_events,
    cli_exit,
    cli_groups,
    cli_models,
    cli_plan,
    cli_policy,
    cli_remediation,
    cli_store,
    cli_token,
    tables,
)
from northbound.cli_alarms import alarms
from northbound.cli_completion import completion
from northbound.cli_forecast import forecast
from northbound.cli_pool import pool
from northbound.cli_shared import (
    FAILED,
    MISUSED,
    JsonOption,
    LimitOption,
    OffsetOption,
    Remote,
    asks_planner,
    examples,
    faults_told,
    progress,
    show,
    show_page,
    stop,
)
from northbound.cli_status import status
from northbound.cli_top import top
from planner.audit import AuditError
from planner.config import Config, load
from planner.config_faults import ConfigError
from planner.policies_file import policies_for
from planner.secret import SecretError

app = typer.Typer(
    name="tidegate",
    help="Forecast bandwidth demand and set OpenFlow meters before it arrives.",
    epilog=cli_exit.in_help(),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class LevelName(StrEnum):
    """Levels of the pool tree, as the command line takes them."""

    GLOBAL = "global"
    REGION = "region"
    GROUP = "group"
    USER = "user"
    APPLICATION = "application"


def main() -> None:
    """Run the command; what ``setup.cfg`` names."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot draw a dash shall get a question mark, not a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # By this name also where it is run as a module: completion goes by it.
    app(prog_name="tidegate")


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"tidegate {installed_version('tidegate')}")
        except PackageNotFoundError:
            print("tidegate 0+uninstalled")
        raise typer.Exit


@app.callback()
def tidegate(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Forecast bandwidth demand and set OpenFlow meters before it arrives."""


@app.command(epilog=examples("check config/demo.yaml"))
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The configuration file.")],
    as_json: JsonOption = False,
) -> None:
    """Say whether a configuration file is right, and if not, every fault."""
    try:
        config = load(file)
        if config.policies.file is not None:
            policies_for(config, config.policies.file)
    except ConfigError as error:
        if as_json:
            print(json.dumps({"file": str(file), "ok": False, "faults": list(error.faults)}, indent=2))
            raise typer.Exit(MISUSED) from None
        stop(MISUSED, *error.faults)
    print(json.dumps({"file": str(file), "ok": True, "faults": []}, indent=2) if as_json else f"{file}: ok")


@app.command(epilog=examples("run --config config/demo.yaml"))
def run(
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The configuration file.")],
    parent_pid: Annotated[
        int | None, typer.Option(metavar="PID", min=1, help="Stop when this process is gone.")
    ] = None,
) -> None:
    """Run the planner: the loop, its REST API and its seam.

    `ryu-manager ryu_apps/bandwidth.py` does this by itself; run it alone where
    planner.url is set.
    """
    # Here and not above: a web server that `tidegate check` has no use for.
    with _compiled_code_kept():
        # Not imported for its name: nothing must be missing once the servers are up.
        import planner.process  # noqa: F401
        from northbound.security.tls import CertificateError
        from northbound.server import CannotListen
        from northbound.server import run as run_planner
        from telemetry.encrypted import StoreError
        from telemetry.keys import StoreKeyError

    try:
        run_planner(config, parent_pid)
    except ConfigError as error:
        stop(MISUSED, *error.faults)
    except (
        AuditError, CannotListen, CertificateError, SecretError, StoreError, StoreKeyError,
    ) as error:  # fmt: skip
        stop(FAILED, f"tidegate: {error}")


@app.command(epilog=examples("replay", "replay trace.npz --config config/demo.yaml --json"))
def replay(
    trace: Annotated[
        Path | None, typer.Argument(metavar="[TRACE]", help="A recorded trace; the sample one if not given.")
    ] = None,
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The configuration file.")] = Path(
        "config/demo.yaml"
    ),
    as_json: JsonOption = False,
) -> None:
    """Feed the planner from a recorded trace in virtual time, and sum up."""
    # Here and not above: the models it loads would make every `tidegate check` slow.
    with _compiled_code_kept():
        from planner.replay import run as run_replay

    loaded = _load(config)
    try:
        with progress() as bar:
            task = bar.add_task("replay", total=1.0)
            answer = run_replay(loaded, trace, lambda share: bar.update(task, completed=share))
    except ConfigError as error:
        stop(MISUSED, *error.faults)
    except (OSError, ValueError) as error:
        stop(FAILED, f"tidegate: {error}")
    # Imported late as well: it needs the enums of forecasts and grants, and so their libraries.
    from northbound.views import plain

    show(plain(answer), as_json, _summary_parts)


@app.command(epilog=examples("summary", "summary --json"))
@asks_planner
def summary(
    planner: Remote, limit: LimitOption = 10_000, offset: OffsetOption = 0, as_json: JsonOption = False
) -> None:
    """Offered, forecast, granted and measured so far, and what simpler schemes would have given."""
    show_page(planner, "/summary", {"limit": limit, "offset": offset}, as_json, _summary_parts, "pools")


@app.command(epilog=examples("pools --level region", "pools --level user --limit 100 --offset 200"))
@asks_planner
def pools(
    planner: Remote,
    level: Annotated[LevelName | None, typer.Option(help="Only this level.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Pools on the page.")] = 1000,
    offset: Annotated[int, typer.Option(min=0, help="Pools before the page.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Every pool now: offered, forecast, grant, and what bound it."""
    query: dict[str, Any] = {"limit": limit, "offset": offset}
    if level is not None:
        query["level"] = level.value
    show(planner.get("/metrics/global", query), as_json, lambda answer: [tables.pools(answer)])


@app.command(epilog=examples("archetypes"))
@asks_planner
def archetypes(planner: Remote, as_json: JsonOption = False) -> None:
    """The kinds of users that were found, and how they behave."""
    show(planner.get("/archetypes"), as_json, cli_archetypes.archetypes)


app.command(epilog=examples("status", "status --json --url https://planner.example:8080"))(status)
app.command(epilog=examples("top", "top --sort short --level user", "top --once --filter west"))(top)
app.command(epilog=examples("pool anna", "pool global/west/studio --history 6h"))(pool)
app.command(epilog=examples("explain anna", "explain global/west/studio --json"))(cli_plan.explain)
app.command(epilog=examples("forecast", "forecast anna --plot anna.png", "forecast anna --application web"))(
    forecast
)
app.command(epilog=examples("alarms --open", "alarms --pool global/west --follow"))(alarms)
app.command(epilog=examples("mode", "mode canary --region west", "mode live"))(cli_plan.mode)
app.command(epilog=examples("freeze --reason 'change window'"))(cli_plan.freeze)
app.command(epilog=examples("unfreeze"))(cli_plan.unfreeze)
app.command(epilog=examples("revert", "revert 41 --reason 'worse than before'"))(cli_plan.revert)
app.command(epilog=examples("standbys"))(cli_boost.standbys)
app.command(epilog=examples("completion bash > /etc/bash_completion.d/tidegate"))(completion)
for _group in (
    cli_groups.app,
    cli_plan.app,
    cli_boost.app,
    cli_events.app,
    cli_models.app,
    cli_policy.app,
    cli_remediation.app,
    cli_token.app,
    cli_audit.app,
    cli_store.app,
):
    app.add_typer(_group)


@app.command(
    epilog=examples("demo"),
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def demo(context: typer.Context) -> None:
    """Run the demo network (root only); further arguments go to it."""
    # Ctrl-C reaches the demo as well, which then tidies up: wait for that. A handler that does
    # nothing, and not SIG_IGN, which the demo would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    # A process of its own: it is a user of the system, not a part of it.
    child = subprocess.Popen([sys.executable, "-m", "mininet_scenarios.demo", *context.args])
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    returncode = child.wait()
    # A negative one is the signal that ended it.
    raise typer.Exit(returncode if returncode >= 0 else FAILED)


@contextmanager
def _compiled_code_kept() -> Iterator[None]:
    """Load what Numba compiles; end the command where it has nowhere to keep that."""
    try:
        yield
    except RuntimeError as error:
        # Numba has no type of its own for it.
        if not str(error).startswith("cannot cache function"):
            raise
        cure = "set NUMBA_CACHE_DIR to a directory that this user alone may write"
        stop(FAILED, f"tidegate: compiled code cannot be kept, no directory for it may be written: {cure}")


def _load(path: Path) -> Config:
    with faults_told():
        return load(path)


def _summary_parts(answer: dict[str, Any]) -> Iterator[RenderableType]:
    yield tables.summary(answer)
    yield from tables.totals(answer)
