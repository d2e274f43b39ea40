"""Small neural networks on the same features as the trees, trained in NumPy on the pinball loss.

A network reads what all horizons of a window share once, and joins each horizon's own features to
that. So fifteen horizons cost little more than one, and nothing but NumPy is needed: PyTorch takes
two seconds to import and 0.7 GB of disk.

Source: pinball loss after Koenker and Bassett (1978); Adam after Kingma and Ba (2015); SiLU after
Elfwing et al. (2018); means of networks that start at different weights after Hansen and Salamon (1990).
"""

from __future__ import annotations

import functools
import io
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from forecasting.features import NAMES, SERIES_FEATURES
from forecasting.history import Floats, Ints
from forecasting.quantile_model import ModelFailed, rearranged, stored_arrays
from forecasting.settings import ForecastSettings
from forecasting.windows import rows_of, starts

#: Networks whose mean is the forecast: their own chance errors cancel.
NETWORKS: Final = 2
#: Widths of the two layers that read the window, of the layer that joins horizon and window, of the last.
WINDOW_WIDTHS: Final = (64, 64)
JOIN_WIDTH: Final = 64
HEAD_WIDTH: Final = 32
#: Rows per gradient step, fewer where they are few in all; passes over the rows, more where they are few.
BATCH_ROWS: Final = 1024
FEWEST_BATCH_ROWS: Final = 64
PASSES: Final = 10
MOST_PASSES: Final = 20
STEPS: Final = 400
#: Largest step of Adam; it rises to this over the first part of a training and falls to nothing after.
LEARNING_RATE: Final = 1e-2
RISING_SHARE: Final = 0.3
#: Standardised features beyond this are taken for this: nothing is extrapolated far.
FEATURE_BOUND: Final = 6.0
#: Rows predicted at once: what lies between the layers stays in the CPU's cache.
PREDICT_ROWS: Final = 2048

#: Columns of the horizon's own features; all others are the window's.
_HORIZON: Final = slice(len(SERIES_FEATURES), len(NAMES))


class NetworkQuantiles:
    """The mean of a few small networks, each trained from weights of its own."""

    def __init__(self, settings: ForecastSettings) -> None:
        self._settings = settings
        self._nets: list[_Network] = []
        self._scale = _Scale(np.zeros(0, np.float32), np.zeros(0, np.float32))

    @property
    def sequence_steps(self) -> int:
        """The features say it all."""
        return 0

    def fit(self, x: Floats, y: Floats) -> None:
        """As the protocol says.

        Raises
        ------
        ModelFailed : when training ran away.
        """
        self._scale = _Scale.of(x)
        with _blas_threads(self._settings.threads):
            inputs = _Inputs.of(x, self._scale)
            self._nets = [
                _trained(
                    inputs, y, self._settings.quantiles, np.random.default_rng([self._settings.seed, one])
                )
                for one in range(NETWORKS)
            ]
        if not all(np.isfinite(net.weights).all() for net in self._nets):
            raise ModelFailed("training of the network ran away: weights are not finite")

    def predict(self, x: Floats) -> Floats:
        """As the protocol says."""
        if not self._nets:
            raise ModelFailed("the network was not trained")
        if x.shape[1] != len(self._scale.centre):
            raise ModelFailed(f"rows must have {len(self._scale.centre)} columns, got {x.shape[1]}")
        total = np.zeros((len(x), len(self._settings.quantiles)), np.float32)
        with _blas_threads(self._settings.threads):
            inputs = _Inputs.of(x, self._scale)
            for net in self._nets:
                total += net.predict(inputs)
        total /= len(self._nets)
        return rearranged(total)

    def to_bytes(self) -> bytes:
        """Weights and scales as NumPy arrays in a zip, without pickle."""
        if not self._nets:
            raise ModelFailed("the network was not trained")
        stored = io.BytesIO()
        weights = np.stack([net.weights for net in self._nets])
        np.savez_compressed(stored, weights=weights, centre=self._scale.centre, gain=self._scale.gain)
        return stored.getvalue()

    def from_bytes(self, body: bytes) -> None:
        """As the protocol says; every array must have the shape that the settings call for."""
        names = ("weights", "centre", "gain")
        parts = stored_arrays(body, "stored networks", *names)
        weights, centre, gain = (parts[name] for name in names)
        if not all(part.dtype == np.float32 and np.isfinite(part).all() for part in (weights, centre, gain)):
            raise ModelFailed("stored networks hold values that are not finite 32-bit numbers")
        if centre.ndim != 1 or centre.shape != gain.shape:
            raise ModelFailed("stored networks are malformed: their scales are not two rows of one length")
        shapes = _shapes(len(centre), len(self._settings.quantiles))
        if weights.ndim != 2 or not len(weights) or weights.shape[1] != _size(shapes):
            raise ModelFailed(f"stored networks are malformed or have other quantiles: {weights.shape}")
        self._scale = _Scale(centre, gain)
        self._nets = [_Network(np.array(one), shapes) for one in weights]


def count_windows(x: Floats) -> int:
    """Different windows that these rows of shape (n, C) come from; each has a row for every horizon.

    One that was drawn twice teaches no more than once.
    """
    shared = x[:, _shared(x)]
    bits = np.ascontiguousarray(shared[starts(shared)], np.float32).view(np.uint32)
    # A sum with random odd factors, modulo 2 to the 64: windows that differ hardly ever share one.
    factor = np.random.default_rng(0).integers(1, 2**63, bits.shape[1], np.uint64) | np.uint64(1)
    return len(np.unique(bits.astype(np.uint64) @ factor))


def _shared(x: Floats) -> Ints:
    columns = np.arange(x.shape[1])
    return np.delete(columns, columns[_HORIZON])


@dataclass(frozen=True)
class _Scale:
    """What turns a feature into a number around 0, whatever its unit."""

    #: shape (C,), of the features' arcsinh: bursts of many levels stay in reach.
    centre: Floats
    #: shape (C,); 0 for a column that said nothing in training, so that it says nothing later.
    gain: Floats

    @classmethod
    def of(cls, x: Floats) -> _Scale:
        centre, gain = np.zeros((2, x.shape[1]), np.float32)
        for index, column in enumerate(x.T):
            known = np.arcsinh(column[np.isfinite(column)], dtype=np.float64)
            spread = known.std() if known.size else 0.0
            if spread > 1e-6:
                centre[index], gain[index] = known.mean(), 1 / spread
        return cls(centre, gain)

    def read(self, x: Floats, columns: slice | Ints) -> Floats:
        """These columns of x, standardised and bounded; a gap counts as the usual."""
        z = np.arcsinh(x[:, columns])
        z -= self.centre[columns]
        with np.errstate(invalid="ignore"):  # infinity times a gain of 0 is a gap
            z *= self.gain[columns]
        np.clip(z, -FEATURE_BOUND, FEATURE_BOUND, out=z)
        return np.asarray(np.nan_to_num(z, copy=False), np.float32)


@dataclass(frozen=True)
class _Inputs:
    """Standardised rows, what belongs to the window held once for all of its rows."""

    #: shape (m, C - H).
    window: Floats
    #: shape (n, H).
    horizon: Floats
    #: shape (m + 1,), where each window begins; the last entry is n.
    first_row: Ints
    #: shape (n,).
    window_of_row: Ints

    @classmethod
    def of(cls, x: Floats, scale: _Scale) -> _Inputs:
        shared = _shared(x)
        start = starts(x[:, shared])
        return cls(
            window=scale.read(x[start], shared),
            horizon=scale.read(x, _HORIZON),
            first_row=np.append(np.flatnonzero(start), len(x)),
            window_of_row=np.cumsum(start) - 1,
        )


def _shapes(n_columns: int, n_quantiles: int) -> tuple[tuple[int, int], ...]:
    """Of each layer (inputs, outputs): window, window, window to join, horizon to join, head, quantiles."""
    n_horizon = len(range(n_columns)[_HORIZON])
    widths = (n_columns - n_horizon, *WINDOW_WIDTHS, JOIN_WIDTH)
    return (
        *pairwise(widths),
        (n_horizon, JOIN_WIDTH),
        (JOIN_WIDTH, HEAD_WIDTH),
        (HEAD_WIDTH, n_quantiles),
    )


def _size(shapes: tuple[tuple[int, int], ...]) -> int:
    return sum((inputs + 1) * outputs for inputs, outputs in shapes)


@dataclass(frozen=True)
class _Network:
    """One network. All its weights lie in one row, so that a training step is a few operations on that."""

    #: shape (P,).
    weights: Floats
    shapes: tuple[tuple[int, int], ...]

    @functools.cached_property
    def layers(self) -> tuple[tuple[Floats, Floats], ...]:
        """Views of each layer's (inputs, outputs) weights and (outputs,) biases."""
        return _views(self.weights, self.shapes)

    def predict(self, inputs: _Inputs) -> Floats:
        """Quantiles of shape (n, K), as they come."""
        *_, joined = self.read(inputs.window)
        result = np.empty((len(inputs.horizon), self.shapes[-1][1]), np.float32)
        for first in range(0, len(result), PREDICT_ROWS):
            rows = slice(first, first + PREDICT_ROWS)
            *_, result[rows] = self.answer(joined[inputs.window_of_row[rows]], inputs.horizon[rows])
        return result

    def read(self, window: Floats) -> tuple[_Active, _Active, Floats]:
        """The two layers over (m, ...) windows, and what they bring to the join, shape (m, J)."""
        (first, first_bias), (second, second_bias), (third, third_bias), *_ = self.layers
        one = _Active.of(window @ first, first_bias)
        two = _Active.of(one.value @ second, second_bias)
        return one, two, two.value @ third + third_bias

    def answer(self, joined: Floats, horizon: Floats) -> tuple[_Active, _Active, Floats]:
        """The join and the head over (n, ...) rows, and the quantiles, shape (n, K)."""
        *_, (own, own_bias), (head, head_bias), (last, last_bias) = self.layers
        join = _Active.of(horizon @ own + joined, own_bias)
        top = _Active.of(join.value @ head, head_bias)
        return join, top, top.value @ last + last_bias


def _views(flat: Floats, shapes: tuple[tuple[int, int], ...]) -> tuple[tuple[Floats, Floats], ...]:
    views, at = [], 0
    for inputs, outputs in shapes:
        split, end = at + inputs * outputs, at + (inputs + 1) * outputs
        views.append((flat[at:split].reshape(inputs, outputs), flat[split:end]))
        at = end
    return tuple(views)


@dataclass(frozen=True)
class _Active:
    """A layer after its nonlinearity, SiLU: z times the logistic function of z."""

    value: Floats
    #: The logistic function of z.
    gate: Floats

    @classmethod
    def of(cls, z: Floats, bias: Floats) -> _Active:
        z += bias
        # By tanh, which no large number overflows.
        gate = np.tanh(z * np.float32(0.5))
        gate += 1
        gate *= np.float32(0.5)
        z *= gate
        return cls(z, gate)

    def back(self, gradient: Floats) -> Floats:
        """Gradient by z, from the one by the value."""
        slope = 1 - self.gate
        slope *= self.value
        slope += self.gate
        slope *= gradient
        return slope


def _trained(inputs: _Inputs, y: Floats, quantiles: tuple[float, ...], rng: np.random.Generator) -> _Network:
    """A network after so many steps of Adam on the mean pinball loss."""
    level = np.asarray(quantiles, np.float32)
    net = _new_network(inputs, y, level, rng)
    n_windows = len(inputs.window)
    batch = min(max(len(y) * MOST_PASSES // STEPS, FEWEST_BATCH_ROWS), BATCH_ROWS)
    per_pass = max(len(y) // batch, 1)
    n_steps = max(PASSES * per_pass, min(MOST_PASSES * per_pass, STEPS))
    gradient = np.zeros_like(net.weights)
    adam = _Adam(net.weights)
    for step in range(n_steps):
        if step % per_pass == 0:
            order = rng.permutation(n_windows)
        chosen = order[step % per_pass :: per_pass]
        _pinball_gradient(net, inputs, y, level, chosen, gradient)
        adam.step(gradient, _learning_rate(step / n_steps))
    return net


def _new_network(inputs: _Inputs, y: Floats, level: Floats, rng: np.random.Generator) -> _Network:
    n_columns = inputs.window.shape[1] + inputs.horizon.shape[1]
    shapes = _shapes(n_columns, len(level))
    net = _Network(np.zeros(_size(shapes), np.float32), shapes)
    for weight, bias in net.layers:
        bound = 1 / math.sqrt(max(len(weight), 1))
        weight[:] = rng.uniform(-bound, bound, weight.shape)
        bias[:] = rng.uniform(-bound, bound, bias.shape)
    # What is true of all rows together is known before the first step.
    net.layers[-1][1][:] = np.quantile(y, level)
    return net


def _pinball_gradient(
    net: _Network, inputs: _Inputs, y: Floats, level: Floats, chosen: Ints, gradient: Floats
) -> None:
    """Fill ``gradient`` with that of the mean loss over the rows of the chosen windows."""
    rows, index = rows_of(chosen, inputs.first_row)
    window, horizon = inputs.window[chosen], inputs.horizon[rows]
    one, two, joined = net.read(window)
    join, top, predicted = net.answer(joined[index], horizon)
    by_layer = _views(gradient, net.shapes)
    (_, (second, _), (third, _), _, (head, _), (last, _)) = net.layers

    error: Floats = np.subtract(y[rows, None] < predicted, level, dtype=predicted.dtype)
    error /= predicted.size
    _put(by_layer[5], top.value, error)
    error = top.back(error @ last.T)
    _put(by_layer[4], join.value, error)
    error = join.back(error @ head.T)
    _put(by_layer[3], horizon, error)
    # Rows of a window lie together, in the order of ``chosen``.
    error = np.add.reduceat(error, np.flatnonzero(np.diff(index, prepend=-1)), axis=0)
    _put(by_layer[2], two.value, error)
    error = two.back(error @ third.T)
    _put(by_layer[1], one.value, error)
    error = one.back(error @ second.T)
    _put(by_layer[0], window, error)


def _put(layer: tuple[Floats, Floats], inputs: Floats, error: Floats) -> None:
    weight, bias = layer
    np.matmul(inputs.T, error, out=weight)
    error.sum(axis=0, out=bias)


class _Adam:
    """Steps along the gradient, each weight at its own pace."""

    _MEAN: Final = 0.9
    _SQUARE: Final = 0.999

    def __init__(self, weights: Floats) -> None:
        self._weights = weights
        self._mean = np.zeros_like(weights)
        self._square = np.zeros_like(weights)
        self._steps = 0

    def step(self, gradient: Floats, rate: float) -> None:
        self._steps += 1
        self._mean += np.float32(1 - self._MEAN) * (gradient - self._mean)
        self._square += np.float32(1 - self._SQUARE) * (gradient * gradient - self._square)
        root = np.sqrt(self._square / np.float32(1 - self._SQUARE**self._steps))
        root += np.float32(1e-8)
        self._weights -= np.float32(rate / (1 - self._MEAN**self._steps)) * self._mean / root


def _learning_rate(done: float) -> float:
    """At this share of a training: half a cosine up, half a cosine down."""
    if done < RISING_SHARE:
        return LEARNING_RATE * (0.04 + 0.96 * (1 - math.cos(math.pi * done / RISING_SHARE)) / 2)
    return LEARNING_RATE * (1 + math.cos(math.pi * (done - RISING_SHARE) / (1 - RISING_SHARE))) / 2


def _blas_threads(threads: int) -> AbstractContextManager[Any]:
    """NumPy's matrix products on so many threads inside: the loop shares its machine."""
    return _blas().limit(limits=threads, user_api="blas")  # type: ignore[no-any-return]


@functools.cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()
