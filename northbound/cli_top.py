"""``tidegate top``: the pools, live and over the whole screen."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.live import Live

from northbound.cli_quantities import seconds
from northbound.cli_shared import (
    MISUSED,
    JsonOption,
    Remote,
    asks_planner,
    console,
    faults_told,
    show,
    stop,
)
from northbound.cli_top_frame import Screen, Seen, frame
from northbound.cli_top_keys import Keyboard, keyboard
from northbound.cli_top_view import Order, Shown, View, after_key, chosen
from northbound.client import NoAnswer
from planner.config_faults import ConfigError

#: More pools than this are not asked for at once: an operator reads none of them.
_MOST_POOLS: Final = 10_000
#: Within this a new size of the terminal, or a new answer, is drawn.
_LOOK_S: Final = 0.2
_FORBIDDEN: Final = 403
_LEVELS: Final = ("global", "region", "group", "user")


@asks_planner
def top(
    planner: Remote,
    sort: Annotated[Order, typer.Option(help="By what pools are sorted.")] = Order.TREE,
    level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="Only this: global, region, group or user.")
    ] = None,
    text: Annotated[str, typer.Option("--filter", metavar="TEXT", help="Only paths with this in them.")] = "",
    direction: Annotated[Shown, typer.Option(help="Which directions.")] = Shown.BOTH,
    every: Annotated[str, typer.Option(metavar="TIME", help="How often the planner is asked.")] = "2s",
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    rows: Annotated[int, typer.Option(min=1, help="With --once: pools at most.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """All pools live on the whole screen: offered, forecast, grant, use, what bound them; q ends it.

    Keys: q quit, s sort, l level, d direction, / filter, p pause; arrows, PgUp, PgDn, Home and End move.
    The stroke in a bar is the forecast's p90.
    """
    if level is not None and level not in _LEVELS:
        stop(MISUSED, f"tidegate: --level must be one of {', '.join(_LEVELS)}, got {level!r}")
    every_s = seconds(every, "--every")
    view = View(sort, level, text, direction)
    if not once and not as_json:
        # Where a shell has exported them they would hold the picture at that size for good.
        for name in ("COLUMNS", "LINES"):
            os.environ.pop(name, None)
    screen = console()
    if once or as_json:
        with faults_told():
            seen = look(planner, level, None)
        found = chosen(seen.pools, view)[:rows]
        seen = replace(seen, pools=found, total=len(found))
        whole = Screen(screen.width, None, _blocks(screen))
        show(vars(seen), as_json, lambda _: [frame(seen, "", view, whole)])
        return
    if not screen.is_terminal or screen.is_dumb_terminal:
        stop(MISUSED, "tidegate: top needs a terminal; --once prints one frame")
    # Its end must put the terminal back.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    watch = Watch(planner, every_s)
    try:
        with keyboard() as keys, Live(console=screen, screen=True, auto_refresh=False) as live:
            watch.start(level)
            _run(watch, view, keys, live)
    except (KeyboardInterrupt, EOFError):
        # How one leaves, too.
        pass
    finally:
        watch.stop()


def _run(watch: Watch, view: View, keys: Keyboard, live: Live) -> None:
    """Draw and read keys until the operator leaves."""
    drawn: object = None
    while True:
        size = live.console.size
        screen = Screen(size.width, size.height, _blocks(live.console))
        seen, fault = watch.latest
        state = (seen, fault, view, screen)
        if state != drawn:
            live.update(frame(seen, fault, view, screen), refresh=True)
            drawn = state
        for key in keys.wait(_LOOK_S):
            n_rows = len(chosen(seen.pools, view)) if seen is not None else 0
            changed = after_key(view, key, n_rows, screen.page)
            if changed is None:
                return
            if (changed.level, changed.paused) != (view.level, view.paused):
                watch.want(changed.level, changed.paused)
            view = changed


def _blocks(screen: Console) -> bool:
    return screen.encoding.startswith("utf")


class Watch:
    """Asks the planner in a thread of its own, so that a slow answer holds up no key."""

    def __init__(self, planner: Remote, every_s: float) -> None:
        self._planner, self._every_s = planner, every_s
        self._level: str | None = None
        self._paused = False
        self._ended = False
        self._wake = threading.Event()
        #: What was last answered, and the fault since then; swapped as one.
        self.latest: tuple[Seen | None, str] = (None, "")

    def start(self, level: str | None) -> None:
        """Ask from now on."""
        self._level = level
        threading.Thread(target=self._go_on, name="top", daemon=True).start()

    def want(self, level: str | None, paused: bool) -> None:
        """Ask for another level, or for nothing."""
        self._level, self._paused = level, paused
        self._wake.set()

    def stop(self) -> None:
        """Ask no more."""
        self._ended = True
        self._wake.set()

    def _go_on(self) -> None:
        while not self._ended:
            if not self._paused:
                self._ask()
            self._wake.wait(self._every_s)
            self._wake.clear()

    def _ask(self) -> None:
        before, _ = self.latest
        try:
            self.latest = (look(self._planner, self._level, before), "")
        except (NoAnswer, ConfigError) as error:
            self.latest = (before, str(error).splitlines()[0])
        except Exception as error:  # noqa: BLE001 - a thread that dies would look like a quiet network
            self.latest = (before, f"answer not understood: {error!r}")


def look(planner: Remote, level: str | None, before: Seen | None) -> Seen:
    """What the planner shows now; of a tick that was seen before only what changes between ticks.

    Raises
    ------
    ConfigError, NoAnswer : as ``Remote.ask`` does.
    """
    health = planner.ask("/health", also=(503,))
    alarms = _allowed(planner, "/alarms", {"open": True, "limit": 1})
    plan = _allowed(planner, "/plan/state", {})
    switches = planner.ask("/switches")["switches"]
    whole = before is not None and before.total == len(before.pools)
    if before is not None and whole and health["ticks"] == before.health["ticks"]:
        return replace(before, health=health, alarms=alarms, plan=plan, switches=switches)
    page = planner.ask("/metrics/global", {"limit": _MOST_POOLS})
    pools, total = page["pools"], page["total"]
    if total > len(pools) and level is not None:
        pools = planner.ask("/metrics/global", {"limit": _MOST_POOLS, "level": level})["pools"]
    return Seen(health, plan, switches, alarms, pools, total, page["time"])


def _allowed(planner: Remote, path: str, query: dict[str, Any]) -> dict[str, Any] | None:
    """The answer; None where the token may not see it."""
    answer = planner.ask(path, query, also=(_FORBIDDEN,))
    return None if answer.get("status") == _FORBIDDEN else answer
