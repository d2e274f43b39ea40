"""Makes a series file: two weeks of made-up demand, for ``bench.forecast`` and the pictures in the docs.

Four kinds of traffic, from one that a forecast knows well to one that nobody can foresee.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

STEP_S: Final = 300
DAYS: Final = 14
#: A Monday.
START: Final = 1_767_571_200
#: Series of each kind.
OF_EACH: Final = 5


def made_up(seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[str]]:
    """Demand in Mbit/s of shape (T, S), the time at which each row ended, and names."""
    rng = np.random.default_rng(seed)
    n = DAYS * 86_400 // STEP_S
    time = START + STEP_S * np.arange(1, n + 1)
    hour = (time - STEP_S / 2) % 86_400 / 3600
    weekday = (time - START) // 86_400 % 7 < 5
    series, names = [], []
    for number in range(OF_EACH):
        for name, one in (
            ("office", _office(rng, hour, weekday)),
            ("backup", _backup(rng, hour)),
            ("streamer", _streamer(rng, n)),
            ("noise", 8 * rng.lognormal(0, 0.6, n)),
        ):
            series.append(one)
            names.append(f"{name}-{number}")
    return np.stack(series, axis=1).astype(np.float32), time.astype(np.int64), names


def _office(rng: np.random.Generator, hour: Doubles, weekday: npt.NDArray[np.bool_]) -> Doubles:
    day = np.exp(-(((hour - 13.5) / 3.2) ** 2)) * np.where(weekday, 1.0, 0.15)
    return np.asarray((1 + 40 * day) * np.exp(_walk(rng, len(hour), 0.97, 0.05)), np.float64)


def _backup(rng: np.random.Generator, hour: Doubles) -> Doubles:
    start = rng.uniform(0.5, 2.0)
    busy = (hour > start) & (hour < start + 3)
    return np.asarray(np.where(busy, 60, 0.3) * rng.lognormal(0, 0.12, len(hour)), np.float64)


def _streamer(rng: np.random.Generator, n: int) -> Doubles:
    """Sessions of an hour or so, at any time, at one of three rates."""
    rate = np.zeros(n)
    at = 0
    while at < n:
        at += 1 + int(rng.exponential(20))
        length = 1 + int(rng.exponential(15))
        rate[at : at + length] = rng.choice([4.0, 8.0, 16.0])
        at += length
    return np.asarray(0.05 + rate * rng.lognormal(0, 0.08, n), np.float64)


def _walk(rng: np.random.Generator, n: int, keep: float, step: float) -> Doubles:
    result = np.zeros(n)
    for row in range(1, n):
        result[row] = keep * result[row - 1] + rng.normal(0, step)
    return result


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.make_series", description=__doc__)
    parser.add_argument("file", type=Path, help="the .npz to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    series, time, names = made_up(arguments.seed)
    np.savez_compressed(arguments.file, series=series, time=time, names=np.array(names))


if __name__ == "__main__":
    main()
