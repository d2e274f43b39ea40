"""Who forecasts a segment: the model, or something simpler that does better there.

Every contestant forecasts a sample of series at every step. What came of it
is scored out of sample by nature, and the champion of a segment and horizon
changes only when another is clearly better: by a margin, and by more than chance.
A model that breaks loses its segments within minutes, and wins them back when it recovers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.history import Ints

Doubles = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

#: Steps after which a loss counts half.
HALF_LIFE_STEPS: Final = 240.0
#: Steps of evidence before a champion can change.
LEAST_STEPS: Final = 60.0
#: A challenger's mean loss must be lower by this share ...
MARGIN: Final = 0.02
#: ... and the difference must exceed this many standard errors. Losses of neighbouring steps
#: are alike, so the errors are larger than they look.
ERRORS: Final = 3.0
#: Changes that are remembered.
KEPT_CHANGES: Final = 200


class Contestant(IntEnum):
    """Who may forecast a segment."""

    #: The trained global model.
    MODEL = 0
    #: The last value with the quantiles of past residuals of its segment.
    PERSISTENCE = 1
    #: The quantiles of the series' own window.
    RECENT = 2


CONTESTANTS: Final = tuple(Contestant)


@dataclass(frozen=True)
class Change:
    """A segment got another champion at one horizon. Losses are in units of the series' level."""

    #: Epoch seconds.
    time: float
    segment: int
    #: Index of the horizon.
    horizon: int
    before: Contestant
    after: Contestant
    before_loss: float
    after_loss: float


class Contest:
    """Champions of shape (G, H) for G segments, from discounted losses."""

    def __init__(self, n_horizons: int) -> None:
        n = len(CONTESTANTS)
        self._keep = 0.5 ** (1 / HALF_LIFE_STEPS)
        #: shape (G, H), a ``Contestant`` each.
        self.champion: Bytes = np.zeros((0, n_horizons), np.uint8)
        self.changes: deque[Change] = deque(maxlen=KEPT_CHANGES)
        #: Discounted sums: steps, losses, differences to the champion's loss, their squares.
        self._steps: Doubles = np.zeros((0, n_horizons))
        self._loss: Doubles = np.zeros((0, n_horizons, n))
        self._less: Doubles = np.zeros((0, n_horizons, n))
        self._less_squared: Doubles = np.zeros((0, n_horizons, n))

    def champions(self, segment: Ints) -> Bytes:
        """Whose forecast each series gets at each horizon, shape (n, H)."""
        self._reach(segment)
        return self.champion[segment]

    def update(self, horizon: int, loss: Doubles, segment: Ints) -> None:
        """Score forecasts of one horizon that came due together.

        Parameters
        ----------
        horizon :              Index of the horizon, 0 .. H-1.
        loss : shape (n, C)    Pinball loss over the series' level; rows with NaN are skipped.
        segment : shape (n,)
        """
        known = np.isfinite(loss).all(axis=1)
        if not known.any():
            return
        self._reach(segment)
        loss, segment = loss[known], segment[known]
        members = np.bincount(segment, minlength=len(self._steps)).astype(np.float64)
        met = np.flatnonzero(members)
        # One mean a step: series of one step err together, so they are one observation.
        total = np.stack([np.bincount(segment, column, len(members)) for column in loss.T], axis=1)
        mean: Doubles = total[met] / members[met, None]
        less = np.take_along_axis(mean, self.champion[met, horizon, None].astype(np.intp), axis=1) - mean
        for kept, new in (
            (self._steps, 1.0), (self._loss, mean), (self._less, less), (self._less_squared, less**2),
        ):  # fmt: skip
            kept[met, horizon] = self._keep * kept[met, horizon] + new

    def review(self, now: float) -> tuple[Change, ...]:
        """Make the clearly better ones champions; call once a step."""
        if not len(self._steps):
            return ()
        steps = np.maximum(self._steps, 1.0)[..., None]
        gain = self._less / steps
        variance = np.maximum(self._less_squared / steps - gain**2, 0)
        own = np.take_along_axis(self._loss, self.champion[..., None].astype(np.intp), axis=2) / steps
        clear = (gain > MARGIN * own) & (gain > ERRORS * np.sqrt(variance / steps))
        clear &= self._steps[..., None] >= LEAST_STEPS
        best = np.where(clear, gain, -np.inf).argmax(axis=2)
        made = []
        for segment, horizon in zip(*np.nonzero(clear.any(axis=2)), strict=True):
            after = int(best[segment, horizon])
            made.append(
                Change(
                    now, int(segment), int(horizon),
                    Contestant(int(self.champion[segment, horizon])), Contestant(after),
                    float(own[segment, horizon, 0]), float(own[segment, horizon, 0] - gain[segment, horizon, after]),
                )
            )  # fmt: skip
            self.champion[segment, horizon] = after
            # Differences were to the old champion's loss.
            self._less[segment, horizon] = self._less_squared[segment, horizon] = 0
            self._loss[segment, horizon] = self._steps[segment, horizon] = 0
        self.changes.extend(made)
        return tuple(made)

    def scores(self) -> Doubles:
        """Mean losses of shape (G, H, C); NaN without evidence."""
        steps = np.where(self._steps > 0, self._steps, np.nan)[..., None]
        return np.asarray(self._loss / steps)

    def fresh_model(self) -> None:
        """There is a new model: it takes over everywhere, and the contest starts anew."""
        for array in (self.champion, self._steps, self._loss, self._less, self._less_squared):
            array[...] = 0

    def live_score(self) -> tuple[float, float] | None:
        """Mean loss of the model and of persistence over all segments; None without enough evidence."""
        weight = np.where(self._steps >= LEAST_STEPS / 2, self._steps, 0)
        if not weight.any():
            return None
        mean = (self._loss / np.maximum(self._steps, 1)[..., None] * weight[..., None]).sum(
            axis=(0, 1)
        ) / weight.sum()
        return float(mean[Contestant.MODEL]), float(mean[Contestant.PERSISTENCE])

    def restore_champions(self, champion: Bytes) -> None:
        """Go on with another's champions, shape (G, H).

        Raises
        ------
        ValueError : when the shape or a value does not fit; nothing changes.
        """
        if champion.ndim != 2 or champion.shape[1] != self.champion.shape[1]:
            raise ValueError(f"champion must have shape (G, {self.champion.shape[1]}), got {champion.shape}")
        if champion.size and champion.max() >= len(CONTESTANTS):
            raise ValueError(f"champion must be < {len(CONTESTANTS)}, got {champion.max()}")
        self._grow(len(champion))
        self.champion[: len(champion)] = champion

    def _reach(self, segment: Ints) -> None:
        self._grow(int(segment.max(initial=-1)) + 1)

    def _grow(self, n_segments: int) -> None:
        more = n_segments - len(self.champion)
        if more > 0:
            for name in ("champion", "_steps", "_loss", "_less", "_less_squared"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros((more, *old.shape[1:]), old.dtype)]))
