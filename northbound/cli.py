"""The ``tidegate`` command.

Exit status: 0 done, 1 it failed, 2 the configuration or the call is wrong.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.progress import Progress

from northbound import cli_archetypes, cli_audit, cli_models, cli_policy, cli_remediation, cli_token, tables
from northbound.cli_alarms import alarms
from northbound.cli_forecast import forecast
from northbound.cli_shared import FAILED, MISUSED, ConfigOption, JsonOption, UrlOption
from northbound.cli_shared import console as _console
from northbound.cli_shared import faults_told as _faults_told
from northbound.cli_shared import get as _get
from northbound.cli_shared import show as _show
from northbound.cli_shared import stop as _stop
from planner.audit import AuditError
from planner.config import Config, load
from planner.config_faults import ConfigError
from planner.policies_file import policies_for
from planner.secret import SecretError

app = typer.Typer(
    name="tidegate",
    help="Forecast bandwidth demand and set OpenFlow meters before it arrives.",
    epilog="Exit status: 0 done, 1 it failed, 2 the configuration or the call is wrong.",
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
    app()


@app.command()
def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="The configuration file.")]) -> None:
    """Say whether a configuration file is right, and if not, every fault."""
    config = _load(file)
    if config.policies.file is not None:
        with _faults_told():
            policies_for(config, config.policies.file)
    print(f"{file}: ok")


@app.command()
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
    from northbound.security.tls import CertificateError
    from northbound.server import CannotListen
    from northbound.server import run as run_planner
    from telemetry.encrypted import StoreError
    from telemetry.keys import StoreKeyError

    try:
        run_planner(config, parent_pid)
    except ConfigError as error:
        _stop(MISUSED, *error.faults)
    except (
        AuditError, CannotListen, CertificateError, SecretError, StoreError, StoreKeyError,
    ) as error:  # fmt: skip
        _stop(FAILED, f"tidegate: {error}")


@app.command()
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
    from planner.replay import run as run_replay

    loaded = _load(config)
    try:
        with Progress(console=_console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("replay", total=1.0)
            answer = run_replay(loaded, trace, lambda share: progress.update(task, completed=share))
    except ConfigError as error:
        _stop(MISUSED, *error.faults)
    except (OSError, ValueError) as error:
        _stop(FAILED, f"tidegate: {error}")
    # Imported late as well: it needs the enums of forecasts and grants, and so their libraries.
    from northbound.views import plain

    _show(plain(answer), as_json, _summary_parts)


@app.command()
def summary(url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Offered, forecast, granted and measured so far, and what simpler schemes would have given."""
    _show(_get(url, config, "/summary"), as_json, _summary_parts)


@app.command()
def status(url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Whether plans are being made, and how the switches stand. Exit status 1 if the loop stands still."""
    report = _get(url, config, "/health", also=(503,))
    answer = {"health": report, **_get(url, config, "/switches")}
    _show(answer, as_json, lambda both: [*tables.health(both["health"]), tables.switches(both)])
    if report.get("status") == "stalled":
        raise typer.Exit(FAILED)


@app.command()
def groups(url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """The resource groups, and the services that belong to none."""

    def parts(answer: dict[str, Any]) -> Iterator[RenderableType]:
        yield tables.groups(answer)
        yield f"shared services: {', '.join(answer['shared_services']) or 'none'}"

    _show(_get(url, config, "/groups"), as_json, parts)


@app.command()
def pools(
    url: UrlOption = None,
    config: ConfigOption = None,
    level: Annotated[LevelName | None, typer.Option(help="Only this level.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Pools on the page.")] = 1000,
    offset: Annotated[int, typer.Option(min=0, help="Pools before the page.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Every pool now: offered, forecast, grant, and what bound it."""
    query: dict[str, Any] = {"limit": limit, "offset": offset}
    if level is not None:
        query["level"] = level.value
    _show(_get(url, config, "/metrics/global", query), as_json, lambda answer: [tables.pools(answer)])


@app.command()
def plan(url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """The meters that each switch shall hold."""
    _show(_get(url, config, "/plan"), as_json, lambda answer: [tables.plan(answer)])


@app.command()
def archetypes(url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """The kinds of users that were found, and how they behave."""
    _show(_get(url, config, "/archetypes"), as_json, cli_archetypes.archetypes)


@app.command()
def events(url: UrlOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What is announced, what it is expected to do to demand, and how the feeds are."""
    _show(_get(url, config, "/events"), as_json, tables.events)


app.command()(alarms)
app.command()(forecast)
app.add_typer(cli_models.app)
app.add_typer(cli_policy.app)
app.add_typer(cli_remediation.app)
app.add_typer(cli_token.app)
app.add_typer(cli_audit.app)
for _command in (
    cli_policy.mode,
    cli_policy.freeze,
    cli_policy.unfreeze,
    cli_policy.revert,
    cli_policy.boosts,
    cli_policy.standbys,
    cli_policy.explain,
):
    app.command()(_command)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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


def _load(path: Path) -> Config:
    with _faults_told():
        return load(path)


def _summary_parts(answer: dict[str, Any]) -> Iterator[RenderableType]:
    yield tables.summary(answer)
    yield from tables.totals(answer)
