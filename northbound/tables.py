"""What the command line draws. "No data" is a dash, zero is 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.table import Table

MISSING: Final = "–"
_SUMMARY_RATES: Final = {
    "offered_bps": "offered",
    "p50_bps": "p50",
    "p90_bps": "p90",
    "grant_bps": "grant",
    "measured_bps": "measured",
    "static_equal_bps": "static caps",
    "auto_bandwidth_bps": "auto-bw",
}
_POOL_RATES: Final = {
    "offered_bps": "offered",
    "delivered_bps": "delivered",
    "p50_bps": "p50",
    "p90_bps": "p90",
    "grant_bps": "grant",
    "guarantee_bps": "guarantee",
    "ceiling_bps": "ceiling",
}


def mbps(rate_bps: float | None) -> str:
    """A rate in Mbit/s with the digits that matter: three, and none below 1 kbit/s."""
    if rate_bps is None:
        return MISSING
    rate = rate_bps / 1e6
    if rate == 0:
        return "0"
    if abs(rate) < 0.001:
        return "<0.001"
    # Rounded first: 9.996 is 10.0, not 10.00.
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if abs(round(rate, digits)) < limit:
            return f"{rate:.{digits}f}"
    return f"{rate:.0f}"


def shown(value: object) -> str:
    """Text of anything else; a dash where it is not known."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def named(forecast: Mapping[str, Any]) -> str:
    """Whose forecast it is: a pool's, or one application class of it."""
    application = forecast["application"]
    return str(forecast["path"]) if application is None else f"{forecast['path']}, {application}"


def moment(epoch_s: float | None) -> str:
    """Local time of day with its date; a dash where there was none."""
    if not epoch_s:
        return MISSING
    return datetime.fromtimestamp(epoch_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """A length of time as people say it: minutes, or seconds below one."""
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min"


def _table(title: str, text: Sequence[str], numbers: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left")
    for name in text:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def summary(answer: Mapping[str, Any]) -> Table:
    """One row a pool and direction, Mbit/s."""
    table = _table("Mbit/s of frames", ("pool", "level", "dir"), tuple(_SUMMARY_RATES.values()))
    for row in answer["pools"]:
        rates = (mbps(row.get(name)) for name in _SUMMARY_RATES)
        table.add_row(row["path"], row["level"], row["direction"], *rates)
    return table


def totals(answer: Mapping[str, Any]) -> Iterator[str]:
    """The lines below the summary."""
    window = answer.get("window", {})
    span = " to ".join(moment(window.get(end)) for end in ("since", "until"))
    yield f"window: {span}; {shown(window.get('what'))}"
    for name, value in answer.get("totals", {}).items():
        if isinstance(value, Mapping):
            entries = ", ".join(f"{key} {_figure(f'{name}.{key}', entry)}" for key, entry in value.items())
            yield f"{name}: {entries}"
        else:
            yield f"{name}: {_figure(name, value)}"
    equal = answer.get("meters_equal_plan")
    verdict = {True: "equal the plan", False: "DIFFER from the plan", None: "not read back"}[equal]
    yield f"meters on the switches: {verdict}"


def _figure(name: str, value: object) -> str:
    if "_bps" in name and isinstance(value, int | float) and not isinstance(value, bool):
        return f"{mbps(value)} Mbit/s"
    return shown(value)


def pools(answer: Mapping[str, Any]) -> Table:
    """Two rows a pool, upload above download, Mbit/s."""
    first = answer["offset"] + 1 if answer["pools"] else 0
    title = (
        f"Mbit/s of frames; pools {first} to {answer['offset'] + len(answer['pools'])} of {answer['total']}"
    )
    table = _table(title, ("pool", "level", "dir"), (*_POOL_RATES.values(), "forecast by", "bound by"))
    for row in answer["pools"]:
        for direction in ("up", "down"):
            one = row[direction]
            rates = (mbps(one[name]) for name in _POOL_RATES)
            table.add_row(
                row["path"], row["level"], direction, *rates, shown(one["rung"]), shown(one["bound"])
            )
    return table


def groups(answer: Mapping[str, Any]) -> Table:
    """One row a group."""
    table = _table(
        "resource groups", ("group", "state", "source", "since", "members", "ceiling up/down", "reason")
    )
    for row in answer["groups"]:
        ceiling = row["ceiling_bps"] or {"up": None, "down": None}
        table.add_row(
            row["id"],
            row["state"],
            row["source"],
            moment(row["since"]),
            ", ".join(row["members"]) or MISSING,
            f"{mbps(ceiling['up'])}/{mbps(ceiling['down'])}",
            row["reason"],
        )
    return table


def switches(answer: Mapping[str, Any]) -> Table:
    """One row a switch."""
    numbers = ("meters", "plan", "lost polls")
    table = _table("switches", ("dpid", "region", "connected", "last seen", "in step"), numbers)
    for row in answer["switches"]:
        texts = (row["region"], row["connected"], moment(row["last_seen"]), row["in_step"])
        figures = (row["n_meters"], row["plan_version"], row["lost_polls"])
        table.add_row(row["dpid"], *map(shown, texts), *map(shown, figures))
    return table


def plan(answer: Mapping[str, Any]) -> Table:
    """One row a meter."""
    title = f"plan {answer['version']} of {moment(answer['time'])}, {answer['mode']}"
    numbers = ("meter", "kbit/s", "burst kbit")
    table = _table(title, ("dpid", "in step", "pool", "dir"), numbers)
    for dpid, switch in answer["switches"].items():
        for meter in switch["meters"]:
            texts = (switch["in_step"], meter["pool"], meter["direction"])
            figures = (meter["meter_id"], meter["rate_kbps"], meter["burst_kbit"])
            table.add_row(dpid, *map(shown, texts), *map(shown, figures))
    return table


def events(answer: Mapping[str, Any]) -> Iterator[Table | str]:
    """One row an event, and one a feed."""
    names = ("event", "kind", "state", "start", "end", "scope", "source")
    table = _table("events", names, ("factor up", "factor down", "learnt from"))
    for row in answer["events"]:
        uplift = row["uplift"]
        factors = [_factor(uplift[direction]) if uplift else MISSING for direction in ("up", "down")]
        learnt = shown(max(uplift[direction]["n_events"] for direction in uplift)) if uplift else MISSING
        scope = ", ".join(row["scope"]) or "everybody"
        times = (moment(row["start"]), moment(row["end"]))
        table.add_row(row["id"], row["kind"], row["state"], *times, scope, row["source"], *factors, learnt)
    yield table
    feeds = _table("feeds", ("feed", "where", "stale", "last success", "error"), ("events", "skipped"))
    for row in answer["feeds"]:
        about = (
            row["name"],
            row["address"],
            shown(row["stale"]),
            moment(row["last_success"]),
            shown(row["error"]),
        )
        feeds.add_row(*about, shown(row["n_events"]), shown(row["n_skipped"]))
    yield feeds
    for row in answer["feeds"]:
        yield from (f"{row['name']}: skipped {reason}" for reason in row["reasons"])


def _factor(uplift: Mapping[str, Any]) -> str:
    return f"{uplift['p50']:.2f} ({uplift['p10']:.2f} to {uplift['p90']:.2f})"


def health(answer: Mapping[str, Any]) -> Iterator[str]:
    """The lines above the switches."""
    yield f"planner {answer['version']}: {answer['status']}"
    tick_ms = answer["tick_ms"]
    took = MISSING if tick_ms is None else f"{tick_ms:.1f} ms"
    yield f"last tick {moment(answer['last_tick'])}, took {took}, {answer['ticks']} ticks"
    for problem in answer["problems"]:
        yield f"problem: {problem}"
