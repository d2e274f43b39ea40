"""Figures as people read them. What is not known is a dash with a reason, never a zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup, escape

#: Shown where a figure is not known. A screen reader says it in words.
NO_DATA: Final = Markup('<span class="nodata">no data</span>')
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@dataclass(frozen=True)
class Scale:
    """One unit for all rates of a page, so that columns compare."""

    unit: str
    factor: float
    decimals: int

    @classmethod
    def of(cls, top_bps: float) -> Scale:
        """What suits rates up to this."""
        if not top_bps < 100e9:
            return cls("Gbit/s", 1e9, 2)
        return cls("Mbit/s", 1e6, 2 if top_bps < 10e9 else 1)

    def number(self, rate_bps: float | None) -> Markup:
        """The figure alone, for a column whose head has the unit."""
        if rate_bps is None or math.isnan(rate_bps):
            return NO_DATA
        if math.isinf(rate_bps):
            return Markup('<span class="none">none</span>')
        return escape(f"{rate_bps / self.factor:,.{self.decimals}f}".replace(",", "\u202f"))

    def rate(self, rate_bps: float | None) -> Markup:
        """The figure with its unit."""
        number = self.number(rate_bps)
        known = rate_bps is not None and math.isfinite(rate_bps)
        return Markup('{}&nbsp;<span class="unit">{}</span>').format(number, self.unit) if known else number

    def plain(self, rate_bps: float | None) -> str:
        """For titles and screen readers."""
        if rate_bps is None or math.isnan(rate_bps):
            return "no data"
        return "none" if math.isinf(rate_bps) else f"{rate_bps / self.factor:.{self.decimals}f} {self.unit}"


def percent(share: float | None, decimals: int = 0) -> Markup:
    """A share of one."""
    if share is None or not math.isfinite(share):
        return NO_DATA
    return Markup('{}&nbsp;<span class="unit">%</span>').format(f"{share * 100:.{decimals}f}")


def score(value: float | None) -> Markup:
    """A loss; less is better."""
    return NO_DATA if value is None or not math.isfinite(value) else escape(f"{value:.3f}")


def span(seconds: float) -> str:
    """A duration in the largest unit that leaves it readable."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.0f} h" if seconds < 2 * _DAY else f"{seconds / _DAY:.0f} days"


def clock(epoch_s: float | None) -> Markup:
    """A moment. The page's script turns it into the reader's own zone; without it stands UTC."""
    if not epoch_s or not math.isfinite(epoch_s):
        return Markup('<span class="none">never</span>')
    moment = datetime.fromtimestamp(epoch_s, UTC)
    shown = moment.strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}">{} UTC</time>').format(moment.isoformat(), shown)


def ago(epoch_s: float | None, now: float) -> Markup:
    """How long since."""
    if not epoch_s or not math.isfinite(epoch_s):
        return Markup('<span class="none">never</span>')
    seconds = now - epoch_s
    return escape(f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}")
