"""How well users are forecast in their first minutes, next to persistence.

    python -m bench.newcomers --json OUT [--data FILE.npz] [--minutes 1,2,5,10,20,30]

Every user is a newcomer once: a third of the users is held out, archetypes are learnt from the
history of the others, and the held-out ones begin later, each at several moments, with nothing
known of them but their first minutes. Without --data the users are made up, of known kinds;
FILE.npz holds ``series`` (T, S) in Mbit/s, ``time`` (T,) and ``names`` (S,). What follows a
slash in a name is its direction, a level of its own. A file with few series is cut
in time: its pieces are the users.

archetypes   the mixture of the archetypes that were found
one          the same with one archetype a level, as it is before the first training
persistence  last value, with the quantiles of the other users' residuals after as many samples,
             in units of the newcomer's mean so far

pinball      mean over quantiles, summed over all and divided by the demand that came
per_user     the same, divided user by user and then averaged: small users count as large ones, but
             none as smaller than 10 kbit/s
won          share of users whose pinball loss is below persistence's
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.figures import write_figures
from forecasting.archetypes import EASE, Archetypes, early, learn_archetypes
from forecasting.baselines import persistence_quantiles
from forecasting.history import Floats, History, Ints
from forecasting.population import learn_population
from forecasting.scoring import pinball_loss
from forecasting.settings import ForecastSettings

MINUTES: Final = (1, 2, 5, 10, 20, 30)
METHODS: Final = ("archetypes", "one", "persistence")
_FOLDS: Final = 3
_ERAS: Final = 3
#: Rows of history to learn from, and rows after them in which newcomers begin and are scored.
_PAST, _FUTURE = 1440, 480
_BEGINNINGS: Final = 12
#: Fewer series than this are cut in time.
_FEWEST: Final = 12
_LEAST_USER_BPS: Final = 1e4
_QUANTILES: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class Users:
    """Demand of users, bit/s, shape (T, S), on a grid of ``step_s``."""

    demand_bps: Floats
    level: Ints
    step_s: float
    end_time: float

    def part(self, rows: slice, columns: npt.NDArray[np.intp]) -> History:
        """Some rows of some users."""
        demand = self.demand_bps[rows, columns]
        ended = self.end_time - (len(self.demand_bps) - rows.stop) * self.step_s
        blank = np.zeros(demand.shape, np.bool_)
        return History(demand, blank, self.step_s, ended, self.level[columns], columns)


def made_up(seed: int = 0, n_users: int = 360, step_s: float = 60.0) -> Users:
    """Streamers, gamers, workers, idle devices and nightly backups, sizes apart by a factor of some."""
    rng = np.random.default_rng(seed)
    n_steps = _PAST + _FUTURE
    hour = np.arange(n_steps) * step_s / 3600 % 24
    demand = np.empty((n_steps, n_users), np.float32)
    for user in range(n_users):
        size = rng.lognormal(0, 0.4)
        kind = user % 5
        if kind == 0:  # streamer: sessions at one of the rates that videos come in
            rate = rng.choice([5e6, 8e6, 16e6]) * size
            demand[:, user] = _sessions(rng, n_steps, 90, 45) * rate * rng.lognormal(0, 0.08, n_steps) + 2e4
        elif kind == 1:  # gamer: little, with bursts of downloads
            burst = rng.random(n_steps) < 0.15
            demand[:, user] = (
                3e5 * rng.lognormal(0, 0.6, n_steps) + burst * rng.pareto(1.5, n_steps) * 4e6
            ) * size
        elif kind == 2:  # worker: a walk around a mean, busier by day
            walk = np.empty(n_steps)
            walk[0] = rng.normal(0, 0.4)
            for step in range(1, n_steps):
                walk[step] = 0.95 * walk[step - 1] + rng.normal(0, 0.12)
            demand[:, user] = 1e6 * size * np.exp(walk) * (0.4 + 0.6 * ((hour > 8) & (hour < 18)))
        elif kind == 3:  # idle device: a keep-alive, and something now and then
            demand[:, user] = 2e3 * size + (rng.random(n_steps) < 0.02) * rng.exponential(2e6, n_steps)
        else:  # backups: by night, else hardly anything
            busy = (hour < 6) & (_sessions(rng, n_steps, 60, 20) > 0)
            demand[:, user] = busy * 2e7 * size * rng.lognormal(0, 0.2, n_steps) + 1e4 * rng.lognormal(
                0, 0.5, n_steps
            )
    return Users(demand, np.zeros(n_users, np.int64), step_s, 1_767_225_600.0 + n_steps * step_s)


def _sessions(rng: np.random.Generator, n_steps: int, on: float, off: float) -> npt.NDArray[np.float64]:
    """1 during sessions of mean length ``on`` steps, 0 in pauses of mean length ``off``."""
    result = np.empty(n_steps)
    at, busy = 0, rng.random() < on / (on + off)
    while at < n_steps:
        length = 1 + int(rng.exponential(on if busy else off))
        result[at : at + length] = busy
        at, busy = at + length, not busy
    return result


def load(path: Path) -> list[Users]:
    """Eras of a file of recorded series, each long enough for one experiment."""
    with np.load(path, allow_pickle=False) as stored:
        series, when, names = stored["series"], stored["time"], stored["names"].astype(str)
    step_s = float(when[1] - when[0])
    demand = (series * 1e6).astype(np.float32)
    kinds = [name.partition("/")[2] for name in names]
    level = np.unique(kinds, return_inverse=True)[1].astype(np.int64)
    rows = _PAST + _FUTURE
    if demand.shape[1] < _FEWEST:
        n_pieces = len(demand) // rows
        cut = demand[-n_pieces * rows :].reshape(n_pieces, rows, -1)
        users = cut.transpose(1, 0, 2).reshape(rows, -1)
        # Two links of one station are two levels: download and upload are not alike.
        return [Users(users, np.tile(np.arange(demand.shape[1]), n_pieces), step_s, float(when[-1]))]
    starts = np.linspace(0, len(demand) - rows, _ERAS).astype(int)
    return [
        Users(demand[start : start + rows], level, step_s, float(when[start + rows - 1])) for start in starts
    ]


@dataclass
class Sums:
    """Losses of one method after one stretch, by user."""

    loss: npt.NDArray[np.float64]
    error: npt.NDArray[np.float64]
    demand: npt.NDArray[np.float64]
    count: npt.NDArray[np.float64]
    below_p90: float = 0.0

    @classmethod
    def of(cls, n_users: int) -> Sums:
        """Nothing yet."""
        return cls(np.zeros(n_users), np.zeros(n_users), np.zeros(n_users), np.zeros(n_users))

    def add(self, forecast: Floats, came: Floats, user: Ints, quantile: npt.NDArray[np.float64]) -> None:
        """Forecasts of shape (n, H, K) for what came, shape (n, H)."""
        known = np.isfinite(came)
        loss = np.where(known, pinball_loss(forecast, came, quantile), 0).sum(axis=1)
        middle = forecast[..., int(np.flatnonzero(quantile == 0.5)[0])]
        np.add.at(self.loss, user, loss)
        np.add.at(self.error, user, np.where(known, np.abs(came - middle), 0).sum(axis=1))
        np.add.at(self.demand, user, np.where(known, came, 0).sum(axis=1))
        high = forecast[..., int(np.flatnonzero(quantile == 0.9)[0])]
        self.below_p90 += float(np.count_nonzero(came[known] <= high[known]))
        np.add.at(self.count, user, known.sum(axis=1))

    def report(self) -> dict[str, float]:
        """Figures over all users."""
        some = self.count > 0
        demand = np.maximum(self.demand, _LEAST_USER_BPS * self.count)[some]
        return {
            "pinball": float(self.loss.sum() / self.demand.sum()),
            "per_user": float((self.loss[some] / demand).mean()),
            "wape": float(self.error.sum() / self.demand.sum()),
            "covered_p90": self.below_p90 / float(self.count.sum()),
        }


def measure(users: Sequence[Users], minutes: Sequence[float]) -> dict[str, Any]:
    """Scores after each stretch that holds a sample, and what was found on the way."""
    step_s = users[0].step_s
    steps = {minute: int(minute * 60 / step_s) for minute in minutes if minute * 60 >= step_s}
    width = users[0].demand_bps.shape[1]
    sums = {(n, method): Sums.of(width * len(users)) for n in steps.values() for method in METHODS}
    found, learn_s = [], []
    settings = ForecastSettings(
        step_s=step_s,
        horizons_s=tuple(step_s * ahead for ahead in (1, 3, 5, 10, 15)),
        quantiles=_QUANTILES,
        train_steps=_PAST,
    )
    for era, one in enumerate(users):
        fold_of = np.random.default_rng(era).permutation(width) % _FOLDS
        for fold in range(_FOLDS):
            others, held_out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            past = one.part(slice(0, _PAST), others)
            started = time.perf_counter()
            population = learn_population(past, settings)
            learn_s.append(time.perf_counter() - started)
            found.append([view.name for view in population.views()])
            known = np.count_nonzero(~np.isnan(past.demand_bps), axis=0) >= settings.min_history_steps
            rng = np.random.default_rng(era)
            single = learn_archetypes(
                past.demand_bps, past.level, known, settings.horizon_steps, np.array(_QUANTILES), rng
            )
            for n_steps in steps.values():
                forecasts = _newcomers(one, held_out, n_steps, settings, population.archetypes, single, past)
                for method, (made, came, user) in forecasts.items():
                    sums[n_steps, method].add(made, came, user + era * width, np.array(_QUANTILES))
    return {
        "step_s": step_s,
        "users": width,
        "eras": len(users),
        "horizons_s": settings.horizons_s,
        "learn_s": float(np.median(learn_s)),
        "found": found,
        "after": [_row(minute, n, sums) for minute, n in steps.items()],
    }


def _row(minute: float, n_steps: int, sums: dict[tuple[int, str], Sums]) -> dict[str, Any]:
    methods = {method: sums[n_steps, method] for method in METHODS}
    naive = methods["persistence"]
    scored = naive.demand > 0
    reports: dict[str, Any] = {method: one.report() for method, one in methods.items()}
    for method in METHODS[:2]:
        reports[method]["won"] = float((methods[method].loss < naive.loss)[scored].mean())
        for score in ("pinball", "per_user", "wape"):
            reports[method][f"{score}_ratio"] = reports[method][score] / reports["persistence"][score]
    return {"minutes": minute, "samples": n_steps, **reports}


Forecasts = dict[str, tuple[Floats, Floats, Ints]]


def _newcomers(
    users: Users,
    held_out: npt.NDArray[np.intp],
    n_steps: int,
    settings: ForecastSettings,
    archetypes: Archetypes,
    single: Archetypes,
    past: History,
) -> Forecasts:
    """Forecasts of each method for every held-out user at several beginnings, and what came."""
    ahead = settings.horizon_steps
    begin = np.linspace(_PAST, _PAST + _FUTURE - 31 - int(ahead[-1]), _BEGINNINGS).astype(int)
    rows = begin + np.arange(n_steps)[:, None]
    own = users.demand_bps[rows][:, :, held_out].reshape(n_steps, -1)
    target = users.demand_bps[begin + n_steps - 1 + ahead[:, None]][:, :, held_out].reshape(len(ahead), -1).T
    user, level = np.tile(held_out, len(begin)), np.tile(users.level[held_out], len(begin))
    usable = ~np.isnan(own[-1])
    own, target, user, level = own[:, usable], target[usable], user[usable], level[usable]
    return {
        "archetypes": (archetypes.forecast(own, level), target, user),
        "one": (single.forecast(own, level), target, user),
        "persistence": (_persistence(past, own, level, ahead), target, user),
    }


def _persistence(past: History, own: Floats, level: Ints, ahead: Ints) -> Floats:
    n_steps = len(own)
    result = np.full((own.shape[1], len(ahead), len(_QUANTILES)), np.nan, np.float32)
    for one in np.unique(level):
        others = past.demand_bps[:, past.level == one]
        ease = max(EASE * float(np.nanmedian(others)), 1.0)
        cutoffs = np.linspace(n_steps - 1, len(others) - 1 - int(ahead[-1]), 64).astype(int)
        before = others[cutoffs - np.arange(n_steps - 1, -1, -1)[:, None]].reshape(n_steps, -1)
        after = others[cutoffs + ahead[:, None]].reshape(len(ahead), -1)
        seen = early(before)
        residual = ((after - before[-1]) / (seen.mean_bps + np.float32(ease))).T
        mine = level == one
        newcomer = early(own[:, mine])
        scale = newcomer.mean_bps + np.float32(ease)
        result[mine] = persistence_quantiles(own[-1, mine], scale, residual, np.array(_QUANTILES))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; what ``python -m bench.newcomers`` does."""
    parser = argparse.ArgumentParser(description="How well users are forecast in their first minutes.")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where the result goes; default: print it")
    parser.add_argument("--data", type=Path, metavar="FILE.npz", help="recorded series; default: made up")
    parser.add_argument("--minutes", default=",".join(map(str, MINUTES)), help="minutes of own data")
    options = parser.parse_args(arguments)
    minutes = [float(minute) for minute in options.minutes.split(",")]
    users = load(options.data) if options.data else [made_up()]
    result = {"data": options.data.name if options.data else "made up", **measure(users, minutes)}
    write_figures(result, options.json)
    for row in result["after"]:
        one = row["archetypes"]
        print(
            f"{row['minutes']:g} min: pinball {one['pinball']:.4f}, persistence {row['persistence']['pinball']:.4f} "
            f"(x{one['pinball_ratio']:.3f}; per user x{one['per_user_ratio']:.3f}; won {one['won']:.0%})",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
