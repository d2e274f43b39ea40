"""Every global model through their one protocol; the LSTM where its extra is installed."""

from __future__ import annotations

import importlib.util
import io
import pickle
from dataclasses import replace

import numpy as np
import pytest

from forecasting.models import ModelFailed, QuantileModel, new_model
from forecasting.settings import MODELS, ForecastSettings

SETTINGS = ForecastSettings(iterations=40, depth=3, learning_rate=0.2, window_steps=12, min_history_steps=8)

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not installed: pip install 'tidegate[lstm]'",
)
KINDS = [pytest.param(kind, marks=needs_torch if kind == "lstm" else ()) for kind in MODELS]


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Y is uniform on [0, width] with the width in x; a tenth of x is missing."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(1, 3, (n, 4)).astype(np.float32)
    y = (rng.uniform(0, 1, n) * x[:, 0]).astype(np.float32)
    x[rng.random(n) < 0.1, 1] = np.nan
    return x, y


def rows_for(model: QuantileModel, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same rows with as much of a window behind them as the model reads: noise with gaps."""
    x, y = rows(n, seed)
    rng = np.random.default_rng(seed + 100)
    window = rng.lognormal(0, 0.5, (n, model.sequence_steps)).astype(np.float32)
    window[rng.random(window.shape) < 0.1] = np.nan
    return np.concatenate([x, window], axis=1), y


@pytest.fixture(params=KINDS, scope="module")
def fitted(request: pytest.FixtureRequest) -> tuple[ForecastSettings, QuantileModel]:
    settings = replace(SETTINGS, model=request.param)
    model = new_model(settings)
    model.fit(*rows_for(model, 3000, 0))
    return settings, model


def test_quantiles_are_learnt_and_do_not_cross(fitted: tuple[ForecastSettings, QuantileModel]) -> None:
    """Unseen rows fall below each quantile about as often as it says."""
    settings, model = fitted
    x, y = rows_for(model, 2000, 1)
    predicted = model.predict(x)
    assert predicted.shape == (2000, len(settings.quantiles))
    assert predicted.dtype == np.float32
    assert (np.diff(predicted, axis=1) >= 0).all()
    below = (y[:, None] <= predicted).mean(axis=0)
    assert np.abs(below - settings.quantiles).max() < 0.06
    wide = x[:, 0] > 2.5
    assert predicted[wide, 4].mean() > 1.4 * predicted[x[:, 0] < 1.5, 4].mean()


def test_bytes_come_back_as_the_same_model(fitted: tuple[ForecastSettings, QuantileModel]) -> None:
    """What is stored predicts what the original predicted, to the bit."""
    settings, model = fitted
    again = new_model(settings)
    again.from_bytes(model.to_bytes())
    x, _ = rows_for(model, 300, 2)
    assert np.array_equal(again.predict(x), model.predict(x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [b"", b"nonsense", pickle.dumps({"a": 1})])
def test_bytes_that_are_no_model_are_refused(kind: str, body: bytes) -> None:
    """Damaged bytes, and pickles above all, raise ModelFailed."""
    with pytest.raises(ModelFailed):
        new_model(replace(SETTINGS, model=kind)).from_bytes(body)


def test_a_forest_that_leads_outside_itself_is_refused() -> None:
    """Swapped child indices would make compiled code read foreign memory."""
    settings = replace(SETTINGS, model="hist_gradient_boosting", iterations=2)
    model = new_model(settings)
    model.fit(*rows(300, 0))
    with np.load(io.BytesIO(model.to_bytes())) as stored:
        parts = {name: stored[name] for name in stored.files}
    bad_child, bad_feature = parts["nodes"].copy(), parts["nodes"].copy()
    bad_child["left"][0] = 10_000
    bad_feature["feature_idx"][0] = 99
    loop = parts["nodes"].copy()
    loop["right"][0] = 0
    for changes in (
        {"nodes": bad_child},
        {"nodes": bad_feature},
        {"nodes": loop},
        {"nodes": np.zeros(len(loop))},
        {"start": np.zeros(2)},
    ):
        body = io.BytesIO()
        np.savez(body, **{**parts, **changes})
        with pytest.raises(ModelFailed, match="malformed"):
            new_model(settings).from_bytes(body.getvalue())
