"""Fan charts as SVG: what came, what had been forecast of it, and what is forecast.

The picture stretches with the page: shapes live in an inner drawing of 1000 x 1000 that is
stretched, text beside it at percentages, so that it is neither stretched nor shrunk. Colours are
classes of the style sheet, since they differ between light and dark.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from forecasting.forecast import Rung
from northbound.dashboard.figures import Scale, span
from planner.snapshot import PoolForecast

F64 = npt.NDArray[np.float64]
#: Class of the style sheet, label, bit/s.
Limit = tuple[str, str, float]

_SIDE: Final = 1000.0
#: More points than a screen has columns tell nothing.
_MOST_POINTS: Final = 400
#: Quantiles at which the bands ahead begin; they end as far from the other side.
_BANDS: Final = (0.1, 0.25)
_STEPS: Final = (1, 2, 2.5, 5, 10)
_TIME_STEPS: Final = (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600)


def fan_chart(
    found: PoolForecast, d: int, scale: Scale, since: float, limits: Iterable[Limit], title: str, ident: str
) -> Markup:
    """One direction of a pool.

    ``since`` is where it begins, ``limits`` are lines across, ``ident`` is unique on the page.
    """
    limits = _apart(limits)
    past = _Past.of(found, d, since)
    ahead_s = np.concatenate([[0.0], np.asarray(found.horizon_s, np.float64)])
    ahead = np.asarray(found.demand_bps[d], np.float64)
    known = ahead.size > 0 and found.rung[d] < Rung.LAST_PLAN
    end = found.end_time
    first = float(past.time[0]) if len(past.time) else end - 600
    frame = _Frame(first, end + float(ahead_s[-1]), _top(past, ahead if known else ahead[:0], limits))
    shapes = [
        *_gaps(past, frame, end),
        _band(frame, past.time, past.fan[:, 0], past.fan[:, -1], "past-band"),
        _line(frame, past.time, past.fan[:, past.middle], "past-middle"),
    ]
    if known:
        shapes += _ahead(frame, end, ahead_s, ahead, past, found)
    shapes.append(_line(frame, past.time, past.demand, "came"))
    lines = [
        f'<line class="limit {kind}" x1="0" x2="{_SIDE:.0f}" y1="{frame.y(rate):.1f}" y2="{frame.y(rate):.1f}"/>'
        for kind, _, rate in limits
        if frame.holds(rate)
    ]
    now_x = frame.x(end)
    now = f'<line class="now" x1="{now_x:.1f}" x2="{now_x:.1f}" y1="0" y2="{_SIDE:.0f}"/>'
    texts = [*_value_labels(frame, scale), *_limit_labels(frame, limits, scale), *_time_labels(frame, end)]
    told = _in_words(past, found, d, scale)
    drawing = Markup("".join([*_grid(frame), *shapes, *lines, now]))  # noqa: S704 - numbers of ours only
    return _FIGURE.format(
        ident=ident,
        title=title,
        told=told,
        data=_readout(past, found, d, scale, frame),
        drawing=drawing,
        texts=Markup("").join(texts),
    )


_FIGURE: Final = Markup(
    '<figure class="chart" id="{ident}" tabindex="0" data-chart="{data}">'
    '<svg class="plot" role="img" aria-labelledby="{ident}-title {ident}-text">'
    '<title id="{ident}-title">{title}</title><desc id="{ident}-text">{told}</desc>'
    '<svg class="inner" width="100%" height="90%" viewBox="0 0 1000 1000" preserveAspectRatio="none">{drawing}</svg>'
    '{texts}<line class="cursor" visibility="hidden" x1="0" x2="0" y1="0" y2="90%"/></svg>'
    '<output class="readout" aria-live="off">{told}</output></figure>'
)


class _Frame:
    """Time across, rates up."""

    def __init__(self, first: float, last: float, top: float) -> None:
        self.first, self.last = first, max(last, first + 1)
        self.step = _nice(top / 3.2)
        self.top = max(top, self.step)

    def x(self, time: float) -> float:
        return (time - self.first) / (self.last - self.first) * _SIDE

    def y(self, rate: float) -> float:
        return _SIDE - min(rate / self.top, 1.0) * _SIDE

    def holds(self, rate: float) -> bool:
        return math.isfinite(rate) and rate <= self.top


class _Past:
    """The issued history of one direction, thinned to what a screen shows: the peaks stay."""

    def __init__(self, time: F64, demand: F64, fan: F64, middle: int, step_s: float) -> None:
        self.time, self.demand, self.fan, self.middle, self.step_s = time, demand, fan, middle, step_s

    @classmethod
    def of(cls, found: PoolForecast, d: int, since: float) -> _Past:
        issued = found.issued[d]
        kept = (issued.time <= found.end_time) & (issued.time > since)
        time = np.asarray(issued.time[kept], np.float64)
        demand = np.asarray(issued.demand_bps[kept], np.float64)
        # Issued at the shortest horizon.
        fan = np.asarray(issued.forecast_bps[kept, 0], np.float64)
        middle = int(np.argmin(np.abs(np.asarray(issued.quantile) - 0.5))) if len(issued.quantile) else 0
        step_s = float(np.median(np.diff(time))) if len(time) > 1 else 60.0
        every = -(-len(time) // _MOST_POINTS)
        if every > 1:
            starts = np.arange(0, len(time), every)
            demand = np.fmax.reduceat(demand, starts)
            fan = np.fmax.reduceat(fan, starts, axis=0)
            time = time[starts]
        return cls(time, demand, fan, middle, step_s * max(every, 1))


def _top(past: _Past, ahead: F64, limits: Iterable[Limit]) -> float:
    shown = [np.nanmax(part) for part in (past.demand, past.fan, ahead) if np.isfinite(part).any()]
    highest = max([float(value) for value in shown] or [0.0])
    # A limit is drawn where it is near; far above it would press everything else flat.
    near = [rate for _, _, rate in limits if math.isfinite(rate) and rate <= 2.5 * highest]
    return 1.12 * max([highest, *near]) or 1e6


def _apart(limits: Iterable[Limit]) -> list[Limit]:
    """One line where two would lie on one another."""
    found: list[Limit] = []
    for kind, label, rate in limits:
        if found and math.isclose(found[-1][2], rate, rel_tol=0.01):
            found[-1] = (kind, f"{label}, at the {found[-1][1]},", rate)
        else:
            found.append((kind, label, rate))
    return found


def _nice(rough: float) -> float:
    """A round step not below this."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in _STEPS if step * power >= rough * (1 - 1e-9))


def _points(frame: _Frame, time: F64, value: F64) -> Iterator[list[tuple[float, float]]]:
    """Runs of known points: a gap ends one."""
    run: list[tuple[float, float]] = []
    for moment, rate in zip(time.tolist(), value.tolist(), strict=True):
        if math.isfinite(rate):
            run.append((frame.x(moment), frame.y(rate)))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _line(frame: _Frame, time: F64, value: F64, kind: str) -> str:
    parts = []
    for run in _points(frame, time, value):
        # A single point has no length: a short dash shows it.
        line = run if len(run) > 1 else [(run[0][0] - 1.5, run[0][1]), (run[0][0] + 1.5, run[0][1])]
        parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line))
    return f'<path class="{kind}" d="{"".join(parts)}"/>' if parts else ""


def _band(frame: _Frame, time: F64, low: F64, high: F64, kind: str) -> str:
    both = np.isfinite(low) & np.isfinite(high)
    parts = []
    tops = _points(frame, time, np.where(both, high, np.nan))
    bottoms = _points(frame, time, np.where(both, low, np.nan))
    for top, bottom in zip(tops, bottoms, strict=True):
        parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in [*top, *reversed(bottom)]) + "Z")
    return f'<path class="{kind}" d="{"".join(parts)}"/>' if parts else ""


def _ahead(
    frame: _Frame, end: float, ahead_s: F64, ahead: F64, past: _Past, found: PoolForecast
) -> list[str]:
    """Bands within bands, from the last sample on if there was one."""
    last = past.demand[-1] if len(past.demand) else math.nan
    start = np.full((1, ahead.shape[1]), last)
    values = np.vstack([start, ahead])
    time = end + ahead_s
    quantile = np.asarray(found.quantile, np.float64)
    middle = _nearest(quantile, 0.5)
    shapes = [
        _band(frame, time, values[:, low], values[:, high], "ahead-band")
        for low, high in ((_nearest(quantile, aim), _nearest(quantile, 1 - aim)) for aim in _BANDS)
        if low < high
    ]
    return [*shapes, _line(frame, time, values[:, middle], "ahead-middle")]


def _nearest(quantile: F64, aim: float) -> int:
    return int(np.argmin(np.abs(quantile - aim)))


def _gaps(past: _Past, frame: _Frame, end: float) -> Iterator[str]:
    """Hatched where nothing was measured: that is not the same as nothing sent."""
    missing = ~np.isfinite(past.demand)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], missing, [False]]).astype(np.int8)))
    for begin, stop in edges.reshape(-1, 2).tolist():
        left = frame.x(float(past.time[begin]) - past.step_s)
        right = frame.x(min(float(past.time[stop - 1]), end))
        left = max(left, 0.0)
        yield f'<rect class="gap" x="{left:.1f}" y="0" width="{max(right - left, 2):.1f}" height="1000"/>'


def _grid(frame: _Frame) -> Iterator[str]:
    for number in range(int(frame.top / frame.step + 1e-9) + 1):
        y = frame.y(number * frame.step)
        yield f'<line class="grid" x1="0" x2="1000" y1="{y:.1f}" y2="{y:.1f}"/>'


def _value_labels(frame: _Frame, scale: Scale) -> Iterator[Markup]:
    for number in range(1, int(frame.top / frame.step + 1e-9) + 1):
        y = frame.y(number * frame.step) / 10 * _PLOT_SHARE
        shown = f"{number * frame.step / scale.factor:g}" + (f" {scale.unit}" if number == 1 else "")
        # Of the topmost line the label is below: above it is somebody else's place.
        below = 12 if y < 8 else -4
        yield Markup('<text class="value" x="4" y="{}%" dy="{}">{}</text>').format(f"{y:.2f}", below, shown)


def _limit_labels(frame: _Frame, limits: Iterable[Limit], scale: Scale) -> Iterator[Markup]:
    for kind, label, rate in limits:
        if frame.holds(rate):
            y = frame.y(rate) / 10 * _PLOT_SHARE
            yield Markup('<text class="limit-label {}" x="100%" dx="-4" y="{}%" dy="-4">{} {}</text>').format(
                kind, f"{y:.2f}", label, scale.plain(rate)
            )


#: The plot's share of the picture's height, in per cent of it; below are the times. As in the style sheet.
_PLOT_SHARE: Final = 0.9


def _time_labels(frame: _Frame, end: float) -> Iterator[Markup]:
    """Times at round minutes; the page's script turns them into the reader's own zone."""
    whole = frame.last - frame.first
    step = next((one for one in _TIME_STEPS if whole / one <= 4.5), _TIME_STEPS[-1])
    moment = math.ceil(frame.first / step) * step
    while moment < frame.last:
        x = frame.x(moment) / 10
        if 4 < x < 96 and abs(x - frame.x(end) / 10) > 9:
            at = datetime.fromtimestamp(moment, UTC)
            shown = at.strftime("%H:%M:%S" if step < 60 else "%H:%M")
            yield Markup('<text class="time" x="{}%" y="98%" data-epoch="{}">{}</text>').format(
                f"{x:.2f}", round(moment), shown
            )
        moment += step
    yield Markup('<text class="time now-label" x="{}%" y="98%">now</text>').format(f"{frame.x(end) / 10:.2f}")


def _readout(past: _Past, found: PoolForecast, d: int, scale: Scale, frame: _Frame) -> str:
    """What the page's script shows under the cursor."""

    def thinned(values: Sequence[float]) -> list[float | None]:
        return [round(v / scale.factor, 3) if math.isfinite(v) else None for v in values]

    ahead = np.asarray(found.demand_bps[d], np.float64)
    quantile = np.asarray(found.quantile, np.float64)
    places = [_nearest(quantile, aim) for aim in (0.1, 0.5, 0.9)] if len(quantile) else []
    rows: list[list[Any]] = [
        [moment, *thinned([came, *fan])]
        for moment, came, fan in zip(
            past.time.tolist(), past.demand.tolist(), past.fan[:, [0, past.middle, -1]].tolist(), strict=True
        )
    ]
    if found.rung[d] < Rung.LAST_PLAN:
        for horizon, fan in zip(np.asarray(found.horizon_s).tolist(), ahead[:, places].tolist(), strict=True):
            rows.append([found.end_time + horizon, None, *thinned(fan)])
    return json.dumps(
        {"from": frame.first, "to": frame.last, "unit": scale.unit, "end": found.end_time, "rows": rows},
        separators=(",", ":"),
    )


def _in_words(past: _Past, found: PoolForecast, d: int, scale: Scale) -> str:
    """What a glance at the picture gives, for those who cannot."""
    last = past.demand[-1] if len(past.demand) else math.nan
    came = f"Last step: {scale.plain(float(last))}."
    if found.rung[d] == Rung.LAST_PLAN or not len(found.horizon_s):
        return f"{came} No forecast."
    quantile = np.asarray(found.quantile)
    low, high = (_nearest(quantile, aim) for aim in (0.1, 0.9))
    horizon = span(float(found.horizon_s[-1]))
    fan = [float(found.demand_bps[d][-1, at]) for at in (low, high)]
    return f"{came} In {horizon}: {scale.plain(fan[0])} to {scale.plain(fan[1])}, eight times in ten."
