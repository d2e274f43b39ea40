"""A pool's forecast as a picture: what came, the fans issued for it, and the fan ahead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import dates
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from northbound.tables import named, span

#: Colours that people with any colour vision tell apart (Okabe and Ito).
_CAME: Final = "#000000"
_SHORTEST: Final = "#0072B2"
_LONGEST: Final = "#E69F00"
_AHEAD: Final = "#009E73"
_TITLES: Final = {"up": "upload", "down": "download"}


def save(answer: Mapping[str, Any], file: Path) -> None:
    """Draw what ``GET /forecasts/{pool}`` answered. Raises OSError; ValueError for an unknown suffix."""
    made = figure(answer)
    # No window, whatever matplotlib is configured for.
    FigureCanvasAgg(made)
    made.savefig(file, dpi=120)


def figure(answer: Mapping[str, Any]) -> Figure:
    """Upload above download, over the same time. What is not known is left out, never drawn as zero."""
    made = Figure(figsize=(12, 7.5), layout="constrained")
    above, below = made.subplots(2, 1, sharex=True)
    made.suptitle(f"{named(answer)}: demand, and what was forecast of it")
    for axes, direction in ((above, "up"), (below, "down")):
        _draw(axes, answer, direction)
    # Matplotlib's dates have no type information.
    locator: Any = dates.AutoDateLocator()  # type: ignore[no-untyped-call]
    formatter: Any = dates.ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(formatter)
    below.set_xlabel("time (UTC), end of each step")
    # One legend for both, beside the panels: inside it would lie on what it explains.
    told = {label: handle for axes in (above, below) for handle, label in zip(*_told(axes), strict=True)}
    made.legend(told.values(), told.keys(), loc="outside lower center", fontsize="small", ncols=4)
    return made


def _told(axes: Axes) -> tuple[list[Artist], list[Any]]:
    handles, labels = axes.get_legend_handles_labels()
    return list(handles), list(labels)


def _draw(axes: Axes, answer: Mapping[str, Any], direction: str) -> None:
    issued = answer["issued"]
    time = _times(issued["time"])
    levels = issued["quantile"]
    for name, colour in (("longest", _LONGEST), ("shortest", _SHORTEST)):
        horizon_s = issued[name]["horizon_s"]
        if horizon_s is not None:
            fan = [_mbps(column) for column in issued[name][direction]]
            _fan(axes, time, fan, levels, colour, f"issued {span(horizon_s)} before")
    axes.plot(
        time, _mbps(issued["demand_bps"][direction]), color=_CAME, linewidth=1.3, label="demand that came"
    )
    ahead = _times([answer["time"] + horizon_s for horizon_s in answer["horizon_s"]])
    by_level = [_mbps(column) for column in zip(*answer[direction]["demand_bps"], strict=True)]
    # The last rung knows of no demand: its figure is the last plan's, or zero.
    if answer[direction]["rung"] != "last_plan":
        _fan(axes, ahead, by_level, answer["quantile"], _AHEAD, "forecast now", marker="o")
    axes.axvline(_times([answer["time"]])[0], color="0.5", linewidth=0.8, linestyle=":", label="now")
    rung = (answer[direction]["rung"] or "nothing known").replace("_", " ")
    axes.set_title(f"{_TITLES[direction]}, forecast by: {rung}", loc="left", fontsize="medium")
    axes.set_ylabel("Mbit/s of frames")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.25)


def _fan(
    axes: Axes,
    time: Sequence[float],
    fan: Sequence[Sequence[float]],
    levels: Sequence[float],
    colour: str,
    label: str,
    marker: str = "",
) -> None:
    """The median as a line in the band from the lowest to the highest level."""
    middle = min(range(len(levels)), key=lambda at: abs(levels[at] - 0.5))
    low, high = f"p{levels[0] * 100:g}", f"p{levels[-1] * 100:g}"
    axes.fill_between(
        time, fan[0], fan[-1], color=colour, alpha=0.2, linewidth=0, label=f"{label}, {low} to {high}"
    )
    axes.plot(
        time, fan[middle], color=colour, linewidth=1, linestyle="--", marker=marker, markersize=4,
        label=f"{label}, p{levels[middle] * 100:g}",
    )  # fmt: skip


def _mbps(rates_bps: Sequence[float | None]) -> list[float]:
    """Mbit/s; NaN, which matplotlib leaves out, where nothing is known."""
    return [math.nan if rate is None else rate / 1e6 for rate in rates_bps]


def _times(epoch_s: Sequence[float]) -> list[float]:
    """Days since 1970, which is how matplotlib counts time."""
    return [moment / 86400 for moment in epoch_s]
