"""One screen of ``tidegate top``, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from northbound.cli_status import alarm_line, in_step, plan_line
from northbound.cli_top_view import Order, View, chosen, use
from northbound.tables import MISSING, mbps, moment

_STATUS: Final = {"ok": "green", "starting": "yellow", "degraded": "yellow", "stalled": "bold red"}
_RUNGS: Final = {"auto_bandwidth": "auto-bw", "last_plan": "last"}
#: The longest that fits is drawn.
_KEYS: Final = (
    "q quit  s sort  l level  d direction  / filter  p pause  arrows, PgUp, PgDn, Home, End",
    "q quit  s sort  l level  d direction  / filter  p pause  arrows",
    "q quit  s sort  l level  d dir  / filter  p pause",
    "q s l d / p",
)
#: Names have this much before a further figure does.
_LEAST_NAME: Final = 20
_SHORTEST_NAME: Final = 8
_MOST_NAME: Final = 48
_POOL: Final = "pool"


@dataclass(frozen=True)
class Column:
    """One figure of one direction."""

    name: str
    width: int
    order: Order | None = None


#: The most telling first: what the terminal is too narrow for is left out from the end.
_COLUMNS: Final = (
    Column("offered", 7, Order.OFFERED),
    Column("grant", 7, Order.GRANT),
    Column("use", 5, Order.USE),
    Column("load", 8),
    Column("p90", 7),
    Column("short", 7, Order.SHORT),
    Column("bound by", 9),
    Column("forecast", 9),
)
#: ... and in which order they are drawn.
_DRAWN: Final = ("offered", "p90", "grant", "use", "load", "short", "bound by", "forecast")


@dataclass(frozen=True)
class Seen:
    """What the planner last answered."""

    health: Mapping[str, Any]
    plan: Mapping[str, Any] | None
    switches: Sequence[Mapping[str, Any]]
    alarms: Mapping[str, Any] | None
    pools: Sequence[dict[str, Any]]
    #: How many pools there are; more than ``pools`` where not all are asked for.
    total: int
    time: float | None


@dataclass(frozen=True)
class Screen:
    """Where a frame is drawn."""

    width: int
    #: Lines; None: as many as it takes.
    height: int | None
    #: Whether blocks can be drawn.
    blocks: bool = True

    @property
    def page(self) -> int:
        """Rows of pools on it, where there are as many lines above and below as there may be."""
        return 10**9 if self.height is None else max(1, self.height - _FRAMING)


#: Lines that are no pools: three of state, one of the view, two of headings, one of keys.
_FRAMING: Final = 7


def frame(seen: Seen | None, fault: str, view: View, screen: Screen) -> Text:
    """The whole screen, each line cut to its width."""
    lines = [*_state(seen, fault, screen.width), *_body(seen, view, screen)]
    if screen.height is not None:
        lines = lines[: screen.height - 1]
        lines += [Text()] * (screen.height - 1 - len(lines))
        lines.append(_foot(view, screen.width))
    for line in lines:
        line.truncate(screen.width)
    return Text("\n", no_wrap=True).join(lines)


def _state(seen: Seen | None, fault: str, width: int) -> Iterator[Text]:
    if seen is None:
        yield Text("tidegate")
        yield Text()
        yield _line(fault or "asking the planner ...", "bold red" if fault else "")
        return
    health = seen.health
    tick_ms = health["tick_ms"]
    took = MISSING if tick_ms is None else f"{tick_ms:.0f} ms"
    last = moment(health["last_tick"])
    before, after = _fits(
        width - len(health["status"]),
        (f"tidegate {health['version']}  ", f"  tick {health['ticks']} of {last}, took {took}"),
        ("tidegate  ", f"  tick {health['ticks']} of {last.rpartition(' ')[2]}, took {took}"),
        ("", f"  tick {health['ticks']}, {took}"),
    )
    yield Text.assemble(before, (health["status"], _STATUS.get(health["status"], "")), after)
    steps, alarms = in_step(seen.switches), alarm_line(seen.alarms)
    yield _line(
        "".join(
            _fits(
                width,
                (f"plan {plan_line(seen.plan)}", f"; switches {steps}; alarms {alarms}"),
                (f"plan {_plan_words(seen.plan)}", f"; switches {steps}; alarms {alarms}"),
                (f"plan {_plan_words(seen.plan)}", f"; {steps}; alarms {alarms.partition(',')[0]}"),
                (_plan_words(seen.plan), f"; {steps.partition(' in step')[0]}; {alarms.partition(',')[0]}"),
            )
        )
    )
    problems = list(health["problems"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    yield _line(fault, "bold red") if fault else _line(problems[0] + more if problems else "", "yellow")


def _fits(width: int, *forms: tuple[str, ...]) -> tuple[str, ...]:
    """The first form that is no wider, or the last."""
    return next((form for form in forms if sum(map(len, form)) <= width), forms[-1])


def _plan_words(state: Mapping[str, Any] | None) -> str:
    """Which plan stands in a few words: what is out of the ordinary is not left out."""
    if state is None:
        return plan_line(state)
    frozen, stale = ", FROZEN" if state["frozen"] else "", ", STALE" if state["stale"] else ""
    return f"{state['published']['version']}, {state['mode']}{frozen}{stale}"


def _body(seen: Seen | None, view: View, screen: Screen) -> Iterator[Text]:
    if seen is None:
        return
    pools = chosen(seen.pools, view)
    offset = max(0, min(view.offset, len(pools) - screen.page))
    rows = pools[offset : offset + screen.page]
    shown = f"{offset + 1 if rows else 0}-{offset + len(rows)} of {len(pools)}"
    unseen = f" ({seen.total} in all; choose a level)" if seen.total > len(seen.pools) else ""
    paused = "; PAUSED" if view.paused else ""
    level, text = view.level or "all levels", f"; filter {view.text!r}" if view.text else ""
    (about,) = _fits(
        screen.width,
        (f"Mbit/s of frames; {level}, by {view.order}{text}; pools {shown}{unseen}{paused}",),
        (f"Mbit/s; {level}, by {view.order}{text}; {shown}{unseen}{paused}",),
        (f"{level}, by {view.order}{text}; {shown}{paused}",),
    )
    yield _line(about, "dim")
    names = [_name(pool, view) for pool in rows]
    # Of all pools and not of those on the screen: columns must not come and go while one scrolls.
    widest = max((len(_name(pool, view)) for pool in pools), default=0)
    n_directions = len(view.shown.directions)
    least = max(len(_POOL), min(widest, _LEAST_NAME))
    columns = _fitting((screen.width - least) // n_directions)
    if not columns:
        # A name without a figure tells nothing.
        least = min(least, _SHORTEST_NAME)
        columns = _fitting((screen.width - least) // n_directions)
    taken = n_directions * (sum(column.width + 1 for column in columns) + 1)
    width = max(least, min(widest, _MOST_NAME, screen.width - taken))
    yield from _headings(view, columns, width)
    for name, pool in zip(names, rows, strict=True):
        yield _row(name, pool, view, columns, width, screen.blocks)


def _fitting(width: int) -> list[Column]:
    """As many columns as fit, as they are drawn."""
    found: list[Column] = []
    left = width - 1
    for column in _COLUMNS:
        if column.width + 1 > left:
            break
        found.append(column)
        left -= column.width + 1
    return sorted(found, key=lambda column: _DRAWN.index(column.name))


def _headings(view: View, columns: Sequence[Column], width: int) -> Iterator[Text]:
    span = sum(column.width + 1 for column in columns)
    above, below = Text(" " * width), Text(_POOL.ljust(width), style="bold")
    for direction in view.shown.directions:
        above.append(f" {direction.center(span)}", style="bold")
        below.append(" ")
        for column in columns:
            sorted_by = column.order is not None and column.order is view.order
            below.append(f" {column.name:>{column.width}}", style="reverse" if sorted_by else "")
    yield above
    yield below


def _name(pool: Mapping[str, Any], view: View) -> str:
    path: str = pool["path"]
    if not view.indented:
        return _plain(path.removeprefix("global/"))
    return _plain("  " * path.count("/") + path.rpartition("/")[2])


def _row(
    name: str, pool: Mapping[str, Any], view: View, columns: Sequence[Column], width: int, blocks: bool
) -> Text:
    # Of a path that is too long the end tells more.
    line = Text((name if len(name) <= width else "~" + name[1 - width :]).ljust(width))
    for direction in view.shown.directions:
        line.append(" ")
        for column in columns:
            text, style = _cell(column, pool[direction], blocks)
            line.append(f" {text:>{column.width}}", style=style)
    return line


def _cell(column: Column, one: Mapping[str, Any], blocks: bool) -> tuple[str, str]:
    share = use(one)
    style = "" if share is None or share <= 0.8 else "yellow" if share <= 1 else "red"
    match column.name:
        case "use":
            return (MISSING if share is None else "999%" if share > 9.99 else f"{share:.0%}"), style
        case "load":
            return _bar(one, share, column.width, blocks), style
        case "short":
            offered, grant = one["offered_bps"], one["grant_bps"]
            missing = offered is None or grant is None
            return (
                (MISSING, "")
                if missing
                else (mbps(max(0, offered - grant)), "red" if offered > grant else "")
            )
        case "bound by":
            return (one["bound"] or MISSING)[: column.width], "dim"
        case "forecast":
            return _RUNGS.get(one["rung"], one["rung"] or MISSING)[: column.width], "dim"
        case name:
            return mbps(one[f"{name}_bps"]), ""


def _bar(one: Mapping[str, Any], share: float | None, width: int, blocks: bool) -> str:
    """The offered share of the grant, and a stroke where the forecast's p90 is."""
    if share is None:
        return ""
    full, empty, mark = "█░|" if blocks else "#.|"
    filled = min(width, round(share * width))
    bar = full * filled + empty * (width - filled)
    p90 = one["p90_bps"]
    if p90 is not None and (at := round(p90 / one["grant_bps"] * width)) < width:
        bar = bar[:at] + mark + bar[at + 1 :]
    return bar


def _foot(view: View, width: int) -> Text:
    if view.typing is not None:
        return _line(f"filter: {view.typing}_   Enter takes it, Esc does not", "bold")
    (keys,) = _fits(width, *((one,) for one in _KEYS))
    return _line(keys, "dim")


def _line(text: str, style: str = "") -> Text:
    return Text(_plain(text), style=style)


def _plain(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
