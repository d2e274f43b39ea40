"""Recorded demand: what users offered, step by step, and who talked to whom.

A trace is an ``.npz`` file without pickled objects:

``time``        shape (T,), epoch seconds, evenly spaced: the end of each step.
``users``       shape (U,), user ids of the configuration.
``demand_bps``  shape (T, 2, U), upload and download; NaN where nothing was measured.

and, so that groups are found too, all or none of

``edge_src``, ``edge_dst``  shape (E,), rows of ``users``.
``edge_bps``                shape (E,) or (T, E); NaN where nothing was measured.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: Made by ``python -m bench.make_trace``.
SAMPLE_TRACE: Final = Path(__file__).with_name("sample_trace.npz")
_EDGES: Final = ("edge_src", "edge_dst", "edge_bps")
#: Of a tick's span, so much must have been measured for it to be more than a gap.
_KNOWN_SHARE: Final = 0.5


class TraceError(ValueError):
    """The file is no trace; the text names the file, the part, the rule and the value."""


@dataclass(frozen=True)
class Trace:
    """A trace as read; shapes as in the module's docstring, ``edge_bps`` always (T, E)."""

    time: F64
    users: tuple[str, ...]
    demand_bps: F64
    edge_src: I64
    edge_dst: I64
    edge_bps: F64

    @property
    def step_s(self) -> float:
        """Seconds between two rows."""
        return float(self.time[1] - self.time[0])

    @property
    def since(self) -> float:
        """Where the first step begins."""
        return float(self.time[0]) - self.step_s


def load_trace(path: Path) -> Trace:
    """The trace in a file.

    Raises
    ------
    TraceError : if the file is no such trace.
    OSError : if it cannot be read.
    """
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise ValueError("a single array")
        with stored:
            parts = {name: stored[name] for name in stored.files}
    except (ValueError, EOFError, BadZipFile, zlib.error, NotImplementedError):
        # NumPy's own words advise to load it unsafely.
        raise TraceError(f"{path} must be a trace, an .npz file without pickled objects") from None
    try:
        return _checked(parts)
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None


def _checked(parts: dict[str, npt.NDArray[Any]]) -> Trace:
    for name in ("time", "users", "demand_bps"):
        if name not in parts:
            raise TraceError(f"{name} must be there, got {', '.join(sorted(parts)) or 'nothing'}")
    given = [name for name in _EDGES if name in parts]
    if given and len(given) < len(_EDGES):
        raise TraceError(f"{', '.join(_EDGES)} must come together, got {', '.join(given)} alone")
    time = _numbers(parts["time"], "time")
    if time.ndim != 1 or len(time) < 2:
        raise TraceError(f"time must have shape (T,) with T >= 2, got {time.shape}")
    step_s = float(time[1] - time[0])
    if not (np.isfinite(time).all() and step_s > 0 and np.allclose(np.diff(time), step_s, rtol=0, atol=1e-3)):
        raise TraceError("time must rise evenly")
    if parts["users"].ndim != 1 or parts["users"].dtype.kind != "U":
        raise TraceError(f"users must be texts of shape (U,), got {parts['users'].dtype}")
    users = tuple(str(name) for name in parts["users"])
    if not users or len(set(users)) < len(users):
        raise TraceError(f"users must be at least one, each once, got {len(users)}")
    demand = _rates(parts["demand_bps"], "demand_bps", (len(time), 2, len(users)))
    if not given:
        return Trace(time, users, demand, *_no_edges(len(time)))
    ends = [_numbers(parts[name], name) for name in _EDGES[:2]]
    for name, end in zip(_EDGES, ends, strict=False):
        whole = end.shape == ends[0].shape and end.ndim == 1 and (end == np.floor(end)).all()
        if not whole or not ((end >= 0) & (end < len(users))).all():
            raise TraceError(f"{name} must be rows of users, 0 to {len(users) - 1}, of shape (E,)")
    rates = parts["edge_bps"]
    if rates.ndim == 1:
        rates = np.broadcast_to(rates, (len(time), len(rates)))
    edge_bps = _rates(rates, "edge_bps", (len(time), len(ends[0])))
    return Trace(time, users, demand, ends[0].astype(np.int64), ends[1].astype(np.int64), edge_bps)


def _no_edges(n_steps: int) -> tuple[I64, I64, F64]:
    return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((n_steps, 0))


def _numbers(column: npt.NDArray[Any], name: str) -> F64:
    if column.dtype.kind not in "iuf":
        raise TraceError(f"{name} must be numbers, got {column.dtype}")
    return column.astype(np.float64)


def _rates(column: npt.NDArray[Any], name: str, shape: tuple[int, ...]) -> F64:
    if column.shape != shape:
        raise TraceError(f"{name} must have shape {shape}, got {column.shape}")
    rates = _numbers(column, name)
    if (rates < 0).any() or np.isinf(rates).any():
        raise TraceError(f"{name} must be >= 0 and finite, or NaN where nothing was measured")
    return rates


def over_ticks(trace: Trace, rates: F64, ends: F64, tick_s: float) -> F64:
    """Mean rates over the ``tick_s`` before each of ``ends``, shape (n_ticks, ...) for rates of (T, ...).

    A step that lies partly in a tick counts by that part. NaN where less than half of a tick was measured.
    """
    edges = np.concatenate([[trace.since], trace.time])
    known = ~np.isnan(rates)
    weight = trace.step_s * known
    shape = (1, *rates.shape[1:])
    bits = np.concatenate([np.zeros(shape), np.cumsum(np.where(known, rates, 0) * weight, axis=0)])
    seen_s = np.concatenate([np.zeros(shape), np.cumsum(weight, axis=0)])
    spans = [_between(edges, total, ends) - _between(edges, total, ends - tick_s) for total in (bits, seen_s)]
    enough = spans[1] >= _KNOWN_SHARE * tick_s
    mean: F64 = np.where(enough, spans[0] / np.where(enough, spans[1], 1), np.nan)
    # Differences of large sums: an idle tick must not come out as a negative rate.
    return np.where(np.isnan(mean), np.nan, np.maximum(mean, 0))


def _between(edges: F64, total: F64, at: F64) -> F64:
    """Running totals at any moment, linear inside a step."""
    upper = np.clip(np.searchsorted(edges, at), 1, len(edges) - 1)
    part = np.clip((at - edges[upper - 1]) / (edges[upper] - edges[upper - 1]), 0, 1)
    part = part.reshape(-1, *[1] * (total.ndim - 1))
    result: F64 = total[upper - 1] * (1 - part) + total[upper] * part
    return result
