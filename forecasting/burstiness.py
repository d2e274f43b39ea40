"""How bursty and how surprising a series is: bounded figures that ignore its size.

Everything here is scale-free (all rates times two gives the same answer) and
takes a gap for a gap. ``classes`` is the cheap one: it splits series into the
few kinds whose forecasts err alike.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.fft

from forecasting.history import Bools, Floats

Classes = npt.NDArray[np.uint8]

#: What ``classes`` gives, by number.
CLASS_NAMES: Final = ("idle", "steady", "varying", "bursty")
IDLE, STEADY, VARYING, BURSTY = range(4)
#: At or below this share of its own mean a series is quiet.
QUIET_SHARE: Final = 0.1
#: A series is idle when at least this share of its samples is quiet.
IDLE_AT: Final = 0.9
#: Mean change from one step to the next, as a share of the mean, from which a series
#: is varying, and bursty. Measured: docs/archetypes.md.
VARYING_AT: Final = 0.1
BURSTY_AT: Final = 0.4
#: With fewer samples nothing is said, and a series counts as varying.
FEWEST_SAMPLES: Final = 3
#: Steps of a block whose mean counts as one sample of the longer scale.
BLOCK_STEPS: Final = 8
#: Columns at once: their window stays in the CPU's cache.
_CHUNK: Final = 2048
#: States of the Markov chain behind the entropy.
_STATES: Final = 4
#: A period shows when it fits this often.
_FEWEST_CYCLES: Final = 3
#: Squared rounding error of a sample, in units of the squared peak, with room.
_ROUNDING: Final = 1e-12


def classes(demand_bps: Floats) -> Classes:
    """The kind of each series, shape (S,): an index into ``CLASS_NAMES``.

    Idle: nearly all samples quiet, or all zero. Else by the mean absolute step
    over the mean, which lies in 0 .. 2: steady below 0.1, bursty from 0.4 on,
    varying between. A slow swing is therefore steady, as its next step is well known.

    demand_bps : shape (T, S), >= 0; NaN is a gap.
    """
    result = np.empty(demand_bps.shape[1], np.uint8)
    for start in range(0, len(result), _CHUNK):
        part = slice(start, start + _CHUNK)
        result[part] = _classes(np.asarray(demand_bps[:, part], np.float32))
    return result


def _classes(demand: Floats) -> Classes:
    present = np.isfinite(demand)
    whole = bool(present.all())
    known = demand if whole else np.where(present, demand, np.float32(0))
    count = np.count_nonzero(present, axis=0)
    mean = known.sum(axis=0) / np.maximum(count, 1)
    quiet = known <= np.float32(QUIET_SHARE) * mean
    with np.errstate(invalid="ignore"):
        step = np.abs(demand[1:] - demand[:-1])
    if whole:
        pairs = np.full(len(count), max(len(demand) - 1, 1))
    else:
        quiet &= present
        pair = np.isfinite(step)
        step = np.where(pair, step, np.float32(0))
        pairs = np.maximum(np.count_nonzero(pair, axis=0), 1)
    # Multiplied out, so that a mean of 0 needs no exception.
    change = step.sum(axis=0) / pairs
    result = np.full(len(count), STEADY, np.uint8)
    result[change >= VARYING_AT * mean] = VARYING
    result[change >= BURSTY_AT * mean] = BURSTY
    result[np.count_nonzero(quiet, axis=0) >= IDLE_AT * count] = IDLE
    result[count < FEWEST_SAMPLES] = VARYING
    return result


@dataclass(frozen=True)
class Burstiness:
    """Figures of each series, all of shape (S,); NaN where there were too few samples."""

    #: -1 (constant) through 0 (as exponential noise) to 1 (all in one step): (s - m) / (s + m) of
    #: the samples' deviation s and mean m (Goh and Barabasi, 2008), with Kim and Jo's (2016)
    #: correction, so that the bounds are reached with few samples too.
    burstiness: Floats
    #: 0 .. 1: one less mean over peak. 0 is constant; 0.9 is a peak of ten times the mean.
    peakiness: Floats
    #: 0 .. 1: share of samples at or below a tenth of the mean.
    idle_share: Floats
    #: 0 .. 1: v / (1 + v), v being half the mean squared step over the squared mean.
    variance_short: Floats
    #: 0 .. 1: likewise, v being the variance of the means of blocks of ``BLOCK_STEPS``.
    variance_long: Floats
    #: 0 .. 1: what is left unknown of the next sample once the last one is known, as a share of
    #: what is unknown without it. 0 follows from the last sample, 1 has nothing to do with it.
    entropy: Floats
    #: 0 .. 1: the largest share of the variance that one frequency carries (Fisher's g, 1929), of at
    #: least three cycles in the window. White noise of 64 steps has about 0.15.
    seasonality: Floats


def measure(demand_bps: Floats) -> Burstiness:
    """The burstiness and surprise of each series. For training, the API and reports, not for each tick.

    Entropy is that of a first-order Markov chain over the quarters of the series'
    own samples, by counting, each entropy with Miller's (1955) correction for few counts.

    demand_bps : shape (T, S), >= 0; NaN is a gap.
    """
    n_series = demand_bps.shape[1]
    result = np.full((len(fields(Burstiness)), n_series), np.nan, np.float32)
    for start in range(0, n_series, _CHUNK):
        part = slice(start, start + _CHUNK)
        # A series in a row: sorts and transforms then run over adjacent memory.
        window = np.ascontiguousarray(demand_bps[:, part].T, np.float32)
        present = np.isfinite(window)
        enough = np.count_nonzero(present, axis=1) >= FEWEST_SAMPLES
        if enough.all():
            result[:, part] = _measures(window, present)
        elif enough.any():
            result[:, start + np.flatnonzero(enough)] = _measures(window[enough], present[enough])
    return Burstiness(*result)


def _measures(demand: Floats, present: Bools) -> list[npt.NDArray[np.floating]]:
    """In the order of ``Burstiness``; a row of ``demand`` is a series with samples enough."""
    count = np.count_nonzero(present, axis=1)
    peak = np.where(present, demand, np.float32(0)).max(axis=1)
    # In units of the peak nothing overflows, whatever the rates are.
    known = np.where(present, demand / np.where(peak > 0, peak, 1)[:, None], np.float32(0))
    mean = known.sum(axis=1, dtype=np.float64) / count
    safe = np.where(mean > 0, mean, 1.0)
    about = np.where(present, known - mean.astype(np.float32)[:, None], np.float32(0))
    ratio = np.sqrt(np.einsum("st,st->s", about, about) / count) / safe
    quiet = present & (known <= (np.float32(QUIET_SHARE) * mean.astype(np.float32))[:, None])
    pair = present[:, 1:] & present[:, :-1]
    step = np.where(pair, known[:, 1:] - known[:, :-1], np.float32(0))
    pairs = np.maximum(np.count_nonzero(pair, axis=1), 1)
    short = np.einsum("st,st->s", step, step) / pairs / 2 / safe**2
    long = _block_variance(known, present) / safe**2
    return [
        np.clip(_few_sample_burstiness(ratio, count), -1, 1),
        np.where(peak > 0, 1 - mean, 0.0),
        np.count_nonzero(quiet, axis=1) / count,
        short / (1 + short),
        long / (1 + long),
        _entropy(known, present, count, pair),
        _one_frequency(about),
    ]


def _few_sample_burstiness(
    ratio: npt.NDArray[np.floating], count: npt.NDArray[np.intp]
) -> npt.NDArray[np.floating]:
    more, less = np.sqrt(count + 1.0), np.sqrt(count - 1.0)
    result: npt.NDArray[np.floating] = (more * ratio - less) / ((more - 2) * ratio + less)
    return result


def _block_variance(known: Floats, present: Bools) -> npt.NDArray[np.float64]:
    """Variance of the means of blocks, those without samples left out; 0 with fewer than two."""
    n_blocks = known.shape[1] // BLOCK_STEPS
    if n_blocks < 2:
        return np.zeros(len(known))
    # The latest samples fill whole blocks; what is left over is the oldest.
    shape = (len(known), n_blocks, BLOCK_STEPS)
    total = known[:, -n_blocks * BLOCK_STEPS :].reshape(shape).sum(axis=2, dtype=np.float64)
    count = present[:, -n_blocks * BLOCK_STEPS :].reshape(shape).sum(axis=2)
    held = count > 0
    block = total / np.maximum(count, 1)
    n_held = np.maximum(held.sum(axis=1), 1)
    about = np.where(held, block - ((block * held).sum(axis=1) / n_held)[:, None], 0)
    variance: npt.NDArray[np.float64] = (about**2).sum(axis=1) / n_held
    return variance


def _entropy(
    known: Floats, present: Bools, count: npt.NDArray[np.intp], pair: Bools
) -> npt.NDArray[np.floating]:
    ordered = np.sort(np.where(present, known, np.float32(np.inf)), axis=1)
    state = np.zeros(known.shape, np.uint8)
    rows = np.arange(len(known))
    for quarter in range(1, _STATES):
        # The largest sample of the lower quarters: equal samples never part.
        edge = ordered[rows, np.maximum(-(-count * quarter // _STATES) - 1, 0)]
        state += known > edge[:, None]
    cell = (rows * _STATES**2)[:, None] + state[:, :-1] * np.uint8(_STATES) + state[:, 1:]
    joint = np.bincount(cell[pair], minlength=len(known) * _STATES**2).reshape(-1, _STATES, _STATES)
    before, after = _bits(joint.sum(axis=2)), _bits(joint.sum(axis=1))
    left = _bits(joint.reshape(-1, _STATES**2)) - before
    unknown = np.where(after > 0, left / np.where(after > 0, after, 1), 0.0)
    return np.clip(unknown, 0, 1)


def _bits(count: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Entropy of each row of counts, nats, corrected for their number."""
    total = np.maximum(count.sum(axis=1), 1)
    share = count / total[:, None]
    plain = -(share * np.log(np.where(count > 0, share, 1))).sum(axis=1)
    # A row with one kind of outcome has entropy 0 and no correction either.
    corrected: npt.NDArray[np.float64] = plain + (np.count_nonzero(count, axis=1) - 1) / (2 * total)
    return corrected


def _one_frequency(about: Floats) -> npt.NDArray[np.floating]:
    power = np.abs(scipy.fft.rfft(about, axis=1)) ** 2
    total = power[:, 1:].sum(axis=1)
    cycles = power[:, _FEWEST_CYCLES:]
    if cycles.shape[1] == 0:
        return np.zeros(len(about))
    # Rounding alone leaves a little power in a constant.
    noise = _ROUNDING * about.shape[1] ** 2
    share: npt.NDArray[np.floating] = cycles.max(axis=1) / np.where(total > noise, total, 1)
    return np.where(total > noise, np.minimum(share, 1), 0)
