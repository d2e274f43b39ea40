"""What is known of a series beside its demand: the mix of applications in it, and how many peers it has.

All of it is told in figures that mean the same in every network, so a model may learn from them;
which application has which number may not. Whoever does not know a figure gives NaN.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.history import Floats

#: What may be known, in the order of ``History.context``.
#: mix_entropy: of the application classes' shares, over that of as many equal ones; 0 one class, 1 all alike.
#: mix_top_share: share of the largest class. own_share: of the user's demand, for a series of one class.
#: peers: how many endpoints it exchanged traffic with, as log2(1 + mean number).
CHANNELS: Final = ("mix_entropy", "mix_top_share", "own_share", "peers")
#: Rows before the cutoff that a forecast looks at.
CONTEXT_STEPS: Final = 8
#: Known in less than this share of the training's cells, a channel would only tell when measuring began.
LEAST_KNOWN: Final = 0.02

#: What the model sees of each channel: its latest value, and how far that is above the mean.
_PER_CHANNEL: Final = 2


def mix(traffic: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Entropy and top share of the classes in each series' traffic, shapes (n,); NaN without any.

    traffic : shape (n, C), any unit, >= 0. The entropy is over log C: of one class only it is 0.
    """
    total = traffic.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.asarray(traffic / np.where(total > 0, total, np.nan), np.float32)
        bits = np.where(share > 0, share * np.log2(share), np.where(np.isnan(share), np.nan, 0))
    most = float(np.log2(max(traffic.shape[1], 2)))
    entropy = np.asarray(np.abs(bits.sum(axis=1)) / most, np.float32)
    top: Floats = share.max(axis=1) if traffic.shape[1] else np.full(len(share), np.nan, np.float32)
    return entropy, top


def channels_known(context: Floats | None) -> tuple[str, ...]:
    """The channels that a training can learn from; context as in ``History.context``."""
    if context is None or not context.size:
        return ()
    known = np.count_nonzero(~np.isnan(context), axis=(1, 2)) / (context.shape[1] * context.shape[2])
    return tuple(name for name, share in zip(CHANNELS, known.tolist(), strict=True) if share >= LEAST_KNOWN)


def context_features(context: Floats | None, channels: tuple[str, ...], n_series: int) -> Floats:
    """What a model trained with these channels sees of them, shape (2 x len(channels), n_series).

    context : shape (len(CHANNELS), rows, n_series), the last row is the cutoff; only the latest
    ``CONTEXT_STEPS`` are looked at. None: nothing is known.
    """
    result = np.full((_PER_CHANNEL * len(channels), n_series), np.nan, np.float32)
    if context is None or not context.shape[1]:
        return result
    recent = context[:, -CONTEXT_STEPS:]
    for place, name in enumerate(channels):
        values = recent[CHANNELS.index(name)]
        known = ~np.isnan(values)
        count = np.count_nonzero(known, axis=0)
        newest = values.shape[0] - 1 - np.argmax(known[::-1], axis=0)
        latest = values[newest, np.arange(n_series)]
        mean = np.where(known, values, np.float32(0)).sum(axis=0) / np.where(count > 0, count, np.nan)
        result[_PER_CHANNEL * place] = latest
        result[_PER_CHANNEL * place + 1] = latest - mean
    return result


def feature_names(channels: tuple[str, ...]) -> tuple[str, ...]:
    """What the columns are called, in the order of ``context_features``."""
    return tuple(f"{name}{suffix}" for name in channels for suffix in ("", "_rise"))
