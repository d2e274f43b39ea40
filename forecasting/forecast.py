"""The value that forecasting hands on: demand quantiles per series and horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from forecasting.confidence import confidence

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Rung(IntEnum):
    """Who made a series' forecast, best first; the higher, the less is known."""

    #: The trained quantile model, calibrated online.
    MODEL = 0
    #: How other series of the same level behave, scaled to this one.
    ARCHETYPE = 1
    #: Max of 5-minute means over 15 minutes; one figure for every quantile.
    AUTO_BANDWIDTH = 2
    #: Nothing measured: what the last plan assumed, or 0 without one.
    LAST_PLAN = 3


@dataclass(frozen=True)
class Forecast:
    """Demand over one step, ending each horizon from now, as quantiles.

    Raises
    ------
    ValueError : when the values are not finite, are negative or cross, or
        shapes do not fit.
    """

    #: shape (K,), rising, inside (0, 1).
    quantile: Doubles
    #: shape (H,), rising, seconds after ``end_time``.
    horizon_s: Doubles
    #: shape (S, H, K), bit/s, >= 0, never NaN, never falling along K.
    demand_bps: Floats
    #: shape (S,), a ``Rung`` each.
    rung: npt.NDArray[np.uint8]
    #: Epoch seconds: what the forecast knew ended here.
    end_time: float = 0.0
    #: shape (S, H), a ``contest.Contestant`` each: who spoke where the rung is ``MODEL``.
    champion: npt.NDArray[np.uint8] | None = None
    #: shape (S,), an index into ``burstiness.CLASS_NAMES`` each; varying where little is known. None: not asked.
    kind: npt.NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        n_series = len(self.rung)
        wanted = (n_series, len(self.horizon_s), len(self.quantile))
        if self.demand_bps.shape != wanted:
            raise ValueError(f"demand_bps must have shape {wanted}, got {self.demand_bps.shape}")
        # Rising from a value >= 0 to one < inf leaves no room for NaN.
        demand = self.demand_bps
        if n_series and not (
            (demand[..., 0] >= 0).all()
            and (demand[..., -1] < np.inf).all()
            and (demand[..., 1:] >= demand[..., :-1]).all()
        ):
            raise ValueError("demand_bps must be finite, >= 0 and not fall along the quantiles")

    def at(self, horizon_s: float, quantile: float) -> Floats:
        """One quantile at one horizon, shape (S,), bit/s.

        Raises
        ------
        ValueError : when the forecast was not made for that horizon or quantile.
        """
        return self.demand_bps[:, self._horizon(horizon_s), self._quantile(quantile)]

    def peak(self, quantile: float) -> Floats:
        """The highest value of one quantile over all horizons, shape (S,), bit/s."""
        peak: Floats = self.demand_bps[:, :, self._quantile(quantile)].max(axis=1)
        return peak

    def peak_curve(self) -> Floats:
        """Each quantile's highest value over all horizons, shape (S, K), bit/s.

        A child's demand curve for allocation: it rises along K.
        """
        curve: Floats = self.demand_bps.max(axis=1)
        return curve

    def confidence(self, band: float, floor_bps: float = 0.0, rows: Sequence[int] | None = None) -> Doubles:
        """P(demand within ``max(band x median, floor_bps)`` of the median), shape (S, H), in [0, 1].

        ``rows`` : only of these series, in this order.

        As ``confidence.confidence`` defines it. NaN where one figure stands for all quantiles (rungs
        below ``ARCHETYPE``): a guess has no confidence. Ask ``>=``, and what is NaN is not trusted.
        """
        asked = slice(None) if rows is None else np.asarray(rows, np.intp)
        known = confidence(self.demand_bps[asked], self.quantile, band, floor_bps)
        known[self.rung[asked] > Rung.ARCHETYPE] = np.nan
        return known

    def confidence_ahead(self, band: float, floor_bps: float = 0.0) -> Doubles:
        """The confidence over the whole horizon, shape (S,): that of its least certain step."""
        least: Doubles = self.confidence(band, floor_bps).min(axis=1)
        return least

    def _horizon(self, horizon_s: float) -> int:
        return _position(self.horizon_s, horizon_s, "horizon_s")

    def _quantile(self, quantile: float) -> int:
        return _position(self.quantile, quantile, "quantile")


def _position(values: Doubles, wanted: float, name: str) -> int:
    found = np.flatnonzero(np.isclose(values, wanted, rtol=0, atol=1e-6))
    if found.size == 0:
        known = ", ".join(f"{value:g}" for value in values)
        raise ValueError(f"{name} must be one of {known}, got {wanted!r}")
    return int(found[0])
