"""The sample trace that ``tidegate replay`` takes when it is given none.

    python -m bench.make_trace [--out FILE]

Half an hour in the life of the twelve users of ``config/demo.yaml``, in steps of five seconds:
four applications, each busy for a part of a period of its own length, with bursts of varying
height, everybody's small talk with the name server, a few lost polls, and in the second half two
rushes in which one application wants more than its region can carry. The same seed makes the same file.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from planner.trace import SAMPLE_TRACE

F64 = npt.NDArray[np.float64]

STEP_S: Final = 5.0
N_STEPS: Final = 360
#: A Monday, 06:00 UTC; a multiple of the step.
SINCE: Final = 1_767_592_800.0
SEED: Final = 20260105
#: A lost poll in so many.
_LOST: Final = 0.004
_NAME_SERVER_BPS: Final = 12e3


@dataclass(frozen=True)
class Application:
    """Users who send round a ring: the first to the second, the last to the first."""

    users: tuple[str, ...]
    #: Of each user's leg while the application is busy.
    rate_mbps: tuple[float, ...]
    period_s: float
    phase_s: float
    busy_share: float


APPLICATIONS: Final = (
    Application(("anna", "ben", "carla"), (5.0, 4.0, 6.0), 80, 0, 0.5),
    Application(("david", "emma", "felix"), (6.0, 4.0, 3.0), 60, 20, 0.5),
    Application(("gina", "hugo", "ines"), (7.0, 5.0, 4.0), 100, 30, 0.6),
    Application(("jonas", "kira"), (6.0, 4.0), 70, 10, 0.55),
)
USERS: Final = (*(user for application in APPLICATIONS for user in application.users), "names")
#: Start and end, seconds, and how many times its usual rate the first application then sends.
RUSHES: Final = ((1000.0, 1090.0, 3.0), (1420.0, 1510.0, 3.0))


def make() -> dict[str, npt.NDArray[Any]]:
    """The arrays of the trace, by the names of ``planner.trace``."""
    rng = np.random.default_rng(SEED)
    since_start: F64 = STEP_S * np.arange(N_STEPS, dtype=np.float64)
    edges: list[tuple[int, int, F64]] = []
    for number, application in enumerate(APPLICATIONS):
        rows = [USERS.index(user) for user in application.users]
        shape = _shape(application, since_start, rng)
        if number == 0:
            shape = _with_rushes(shape, since_start)
        for place, row in enumerate(rows):
            rate: F64 = application.rate_mbps[place] * 1e6 * shape * (0.9 + 0.2 * rng.random(N_STEPS))
            edges.append((row, rows[(place + 1) % len(rows)], rate))
    server = USERS.index("names")
    for row in range(len(USERS) - 1):
        for pair in ((row, server), (server, row)):
            talk: F64 = _NAME_SERVER_BPS * (0.5 + rng.random(N_STEPS))
            edges.append((*pair, talk))
    demand = np.zeros((N_STEPS, 2, len(USERS)))
    for src, dst, rate in edges:
        demand[:, 0, src] += rate
        demand[:, 1, dst] += rate
    lost = rng.random((N_STEPS, len(USERS))) < _LOST
    demand[np.broadcast_to(lost[:, None], demand.shape)] = np.nan
    return {
        "time": SINCE + since_start + STEP_S,
        "users": np.array(USERS),
        # Whole kbit/s, which pack well.
        "demand_bps": (np.rint(demand / 1e3) * 1e3).astype(np.float32),
        "edge_src": np.array([src for src, _, _ in edges], np.int16),
        "edge_dst": np.array([dst for _, dst, _ in edges], np.int16),
        "edge_bps": (np.rint(np.stack([rate for _, _, rate in edges], axis=1) / 1e3) * 1e3).astype(
            np.float32
        ),
    }


def _shape(application: Application, at_s: F64, rng: np.random.Generator) -> F64:
    """How busy the application is in each step, about 1 at its height."""
    turn = (at_s + application.phase_s) / application.period_s
    inside = np.mod(turn, 1.0) / application.busy_share
    # Each turn has a height of its own, so that the next cannot be known exactly.
    height = 0.8 + 0.4 * rng.random(math.ceil(turn[-1]) + 1)
    busy = np.where(inside < 1, np.sin(np.pi * np.clip(inside, 0, 1)) ** 0.5, 0.0)
    quiet: F64 = 0.03 + 0.02 * rng.random(len(at_s))
    shape: F64 = busy * height[np.floor(turn).astype(np.int64)] + quiet
    return shape


def _with_rushes(shape: F64, at_s: F64) -> F64:
    for start_s, end_s, times in RUSHES:
        shape = np.where((at_s >= start_s) & (at_s < end_s), times, shape)
    return shape


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file."""
    options = argparse.ArgumentParser(
        prog="python -m bench.make_trace",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--out", type=Path, default=SAMPLE_TRACE, metavar="FILE", help=f"{SAMPLE_TRACE}")
    out: Path = options.parse_args(arguments).out
    np.savez_compressed(out, allow_pickle=False, **make())
    print(f"{out}: {out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
