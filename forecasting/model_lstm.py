"""An LSTM that reads the window itself, in PyTorch on the CPU; an optional extra.

Rows of one window differ only in their features (the horizon, above all), so
each window is read once, whatever the number of horizons.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from forecasting.history import Floats, Ints
from forecasting.quantile_model import ModelFailed, rearranged, stored_arrays
from forecasting.settings import ForecastSettings
from forecasting.windows import rows_of, starts, whole_windows

#: Width of the recurrent layer and of the one that joins its end with the features.
HIDDEN: Final = 32
#: Windows per gradient step.
BATCH_WINDOWS: Final = 256
#: Passes over the rows, as far as the bounds on gradient steps allow.
PASSES: Final = 12
#: A short history is passed over more often: twelve steps teach nothing.
MIN_STEPS: Final = 300
#: With ``train_rows``, the bound on the time of a training.
MAX_STEPS: Final = 1_000
LEARNING_RATE: Final = 4e-3
#: Longest gradient believed; a burst must not throw the weights about.
MAX_GRADIENT: Final = 1.0
#: Standardised features beyond this are taken for this.
FEATURE_BOUND: Final = 6.0
#: Windows predicted at once: bounds memory, and their states stay in cache.
PREDICT_WINDOWS: Final = 2_048

_CENTRE: Final = "feature_centre"
_SPREAD: Final = "feature_spread"


class LstmQuantiles:
    """One recurrent network for all series and horizons, trained on the pinball loss.

    Raises
    ------
    ModelFailed : when PyTorch is not installed.
    """

    def __init__(self, settings: ForecastSettings) -> None:
        try:
            import torch  # takes two seconds, and is optional
        except ImportError:
            raise ModelFailed("model 'lstm' needs PyTorch: pip install 'tidegate[lstm]'") from None
        self._torch: Any = torch
        self._settings = settings
        self._net: Any = None
        self._centre = np.zeros(0, np.float32)
        self._spread = np.ones(0, np.float32)

    @property
    def sequence_steps(self) -> int:
        """All that the features look back over."""
        return self._settings.window_steps

    def fit(self, x: Floats, y: Floats) -> None:
        """As the protocol says."""
        if x.shape[1] <= self.sequence_steps:
            raise ModelFailed(f"rows must have > {self.sequence_steps} columns, got {x.shape[1]}")
        self._learn_scale(x[:, : -self.sequence_steps])
        sequence, features, window_of_row = self._inputs(x)
        target = self._torch.from_numpy(np.ascontiguousarray(y, np.float32))
        with self._reproducible():
            self._net = self._new_net(features.shape[1])
            self._train(sequence, features, window_of_row, target)

    def predict(self, x: Floats) -> Floats:
        """As the protocol says."""
        if self._net is None:
            raise ModelFailed("the LSTM was not trained")
        wanted = len(self._centre) + self.sequence_steps
        if x.shape[1] != wanted:
            raise ModelFailed(f"rows must have {wanted} columns, got {x.shape[1]}")
        result = np.empty((len(x), len(self._settings.quantiles)), np.float32)
        with self._reproducible(), self._torch.inference_mode():
            for rows in whole_windows(starts(x[:, -self.sequence_steps :]), PREDICT_WINDOWS):
                sequence, features, window_of_row = self._inputs(x[rows])
                index = self._torch.from_numpy(window_of_row)
                result[rows] = self._forward(sequence, features, index).numpy()
        return rearranged(result)

    def to_bytes(self) -> bytes:
        """Weights and scales as NumPy arrays in a zip, without pickle."""
        if self._net is None:
            raise ModelFailed("the LSTM was not trained")
        parts: dict[str, Any] = {name: value.numpy() for name, value in self._net.state_dict().items()}
        parts.update({_CENTRE: self._centre, _SPREAD: self._spread})
        stored = io.BytesIO()
        np.savez_compressed(stored, **parts)
        return stored.getvalue()

    def from_bytes(self, body: bytes) -> None:
        """As the protocol says; every array must have the shape that the settings call for."""
        parts = stored_arrays(body, "a stored LSTM", _CENTRE, _SPREAD)
        centre, spread = parts.pop(_CENTRE), parts.pop(_SPREAD)
        if centre.ndim != 1 or centre.shape != spread.shape:
            raise ModelFailed("stored LSTM is malformed: its scales are not two rows of one length")
        net = self._new_net(len(centre))
        for name, value in net.state_dict().items():
            if name not in parts or parts[name].shape != tuple(value.shape):
                raise ModelFailed(f"stored LSTM is malformed or has other quantiles: {name}")
        arrays = [centre, spread, *parts.values()]
        if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays):
            raise ModelFailed("stored LSTM holds values that are not finite 32-bit numbers")
        if len(parts) != len(net.state_dict()) or not (spread > 0).all():
            raise ModelFailed("stored LSTM is malformed: unknown arrays or a spread that is not > 0")
        net.load_state_dict({name: self._torch.from_numpy(value) for name, value in parts.items()})
        self._net, self._centre, self._spread = net, centre, spread

    def _new_net(self, n_features: int) -> Any:
        nn = self._torch.nn
        return nn.ModuleDict(
            {
                # What was measured, and whether it was: a gap is not a zero.
                "recurrent": nn.LSTM(input_size=2, hidden_size=HIDDEN, batch_first=True),
                "join": nn.Linear(HIDDEN + n_features, 2 * HIDDEN),
                "quantiles": nn.Linear(2 * HIDDEN, len(self._settings.quantiles)),
            }
        )

    def _forward(self, sequence: Any, features: Any, window_of_row: Any) -> Any:
        _, (last, _) = self._net["recurrent"](sequence)
        joined = self._torch.cat([last[-1][window_of_row], features], dim=1)
        return self._net["quantiles"](self._torch.relu(self._net["join"](joined)))

    def _train(self, sequence: Any, features: Any, window_of_row: Ints, target: Any) -> None:
        torch = self._torch
        n_windows = len(sequence)
        first_row = np.searchsorted(window_of_row, np.arange(n_windows + 1))
        per_pass = max(-(-n_windows // BATCH_WINDOWS), 1)
        n_steps = min(max(PASSES * per_pass, MIN_STEPS), MAX_STEPS)
        optimiser = torch.optim.Adam(self._net.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=n_steps + 1)
        loss_of = _pinball(torch, self._settings.quantiles)
        rng = np.random.default_rng(self._settings.seed)
        for step in range(n_steps):
            if step % per_pass == 0:
                order = rng.permutation(n_windows)
            chosen = order[step % per_pass :: per_pass]
            rows, index = rows_of(chosen, first_row)
            predicted = self._forward(sequence[chosen], features[rows], torch.from_numpy(index))
            loss = loss_of(predicted, target[rows])
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._net.parameters(), MAX_GRADIENT)
            optimiser.step()
            schedule.step()

    def _learn_scale(self, features: Floats) -> None:
        known = np.isfinite(features)
        count = np.maximum(np.count_nonzero(known, axis=0), 1)
        values = np.where(known, features, 0).astype(np.float64)
        centre = values.sum(axis=0) / count
        spread = np.sqrt((np.where(known, values - centre, 0) ** 2).sum(axis=0) / count)
        self._centre = centre.astype(np.float32)
        self._spread = np.where(spread > 1e-6, spread, 1).astype(np.float32)

    def _inputs(self, x: Floats) -> tuple[Any, Any, Ints]:
        """Each window once, shape (m, W, 2), the features, and every row's window."""
        window = x[:, -self.sequence_steps :]
        start = starts(window)
        read = np.arcsinh(window[start])  # bursts of many levels stay in reach of the gates
        gap = np.isnan(read)
        sequence = np.stack([np.where(gap, np.float32(0), read), ~gap], axis=2).astype(np.float32)
        features = (x[:, : -self.sequence_steps] - self._centre) / self._spread
        features = np.clip(np.nan_to_num(features, nan=0.0), -FEATURE_BOUND, FEATURE_BOUND)
        torch = self._torch
        window_of_row = np.cumsum(start) - 1
        return torch.from_numpy(sequence), torch.from_numpy(features.astype(np.float32)), window_of_row

    @contextmanager
    def _reproducible(self) -> Iterator[None]:
        """The settings' threads and seed inside, what the process had before outside."""
        torch = self._torch
        threads = torch.get_num_threads()
        torch.set_num_threads(self._settings.threads)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._settings.seed)
                yield
        finally:
            torch.set_num_threads(threads)


def _pinball(torch: Any, quantiles: tuple[float, ...]) -> Callable[[Any, Any], Any]:
    level = torch.tensor(quantiles, dtype=torch.float32)

    def loss(predicted: Any, target: Any) -> Any:
        error = target[:, None] - predicted
        return torch.maximum(level * error, (level - 1) * error).mean()

    return loss
