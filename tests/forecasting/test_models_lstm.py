"""What only the LSTM does: it reads the window; skipped where PyTorch is not installed."""

from __future__ import annotations

import importlib.util
import io
import sys
from dataclasses import replace

import numpy as np
import pytest

from forecasting.models import ModelFailed, QuantileModel, new_model
from forecasting.settings import ForecastSettings

SETTINGS = ForecastSettings(model="lstm", window_steps=10, min_history_steps=8)

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not installed: pip install 'tidegate[lstm]'",
)


def rows(n_windows: int, seed: int, horizons: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Targets that the window and the horizon tell together: the level that noise hides, per step ahead."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0, 2, (n_windows, 1))
    window = (level * rng.lognormal(0, 0.2, (n_windows, 10))).astype(np.float32)
    window[rng.random(window.shape) < 0.05] = np.nan
    ahead = np.tile(np.arange(1, horizons + 1, dtype=np.float32), n_windows)
    window = np.repeat(window, horizons, axis=0)
    silent = np.full_like(ahead, np.nan)
    y = np.repeat(level[:, 0], horizons) * ahead
    return np.concatenate([ahead[:, None], silent[:, None], window], axis=1), y.astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> QuantileModel:
    model = new_model(SETTINGS)
    model.fit(*rows(1000, 0))
    return model


@needs_torch
def test_it_learns_what_only_the_window_says(fitted: QuantileModel) -> None:
    """Its median errs less than half as much as the best answer that ignores the window."""
    x, y = rows(500, 1)
    median = fitted.predict(x)[:, 2]
    blind = np.where(x[:, 0] == 1, np.median(y[::2]), np.median(y[1::2]))
    assert np.abs(y - median).mean() < 0.5 * np.abs(y - blind).mean()


@needs_torch
def test_a_gap_is_not_a_zero(fitted: QuantileModel) -> None:
    """A window with gaps is read otherwise than one that measured nothing there."""
    x, _ = rows(50, 2)
    x[:, 2:6] = np.nan
    zeros = np.nan_to_num(x[:, 2:])
    assert not np.allclose(fitted.predict(x), fitted.predict(np.concatenate([x[:, :2], zeros], axis=1)))


@needs_torch
def test_the_same_seed_gives_the_same_model() -> None:
    """Two trainings agree to the bit, and another seed gives another model."""
    bodies = []
    for seed in (0, 0, 1):
        model = new_model(replace(SETTINGS, seed=seed))
        model.fit(*rows(300, 0))
        bodies.append(model.to_bytes())
    assert bodies[0] == bodies[1] != bodies[2]


@needs_torch
def test_the_process_keeps_its_own_random_numbers_and_threads() -> None:
    """Nobody else's draws or speed change because a model was trained."""
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    new_model(SETTINGS).fit(*rows(50, 0))
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


@needs_torch
def test_rows_are_predicted_alike_in_any_company(fitted: QuantileModel) -> None:
    """Each window is read once for all its rows; that must not show."""
    x, _ = rows(40, 3)
    together = fitted.predict(x)
    shuffled = np.random.default_rng(0).permutation(len(x))
    assert np.allclose(fitted.predict(x[shuffled]), together[shuffled], atol=1e-5)
    assert fitted.predict(x[:0]).shape == (0, len(SETTINGS.quantiles))


@needs_torch
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"feature_spread": np.zeros(2, np.float32)}, "not > 0"),
        ({"feature_centre": np.zeros(3, np.float32)}, "one length"),
        ({"quantiles.bias": np.zeros(3, np.float32)}, "other quantiles"),
        ({"join.bias": np.full(64, np.nan, np.float32)}, "not finite"),
        ({"join.bias": np.zeros(64)}, "not finite 32-bit"),
        ({"more": np.zeros(3, np.float32)}, "unknown arrays"),
    ],
)
def test_stored_numbers_that_do_not_fit_are_refused(
    fitted: QuantileModel, changes: dict[str, np.ndarray], reason: str
) -> None:
    """A swapped file is found when it is read, not when it forecasts."""
    with np.load(io.BytesIO(fitted.to_bytes())) as stored:
        parts = {name: stored[name] for name in stored.files}
    body = io.BytesIO()
    np.savez(body, **{**parts, **changes})
    with pytest.raises(ModelFailed, match=reason):
        new_model(SETTINGS).from_bytes(body.getvalue())


@needs_torch
def test_rows_without_the_window_are_refused(fitted: QuantileModel) -> None:
    """Features alone would be read as a window."""
    with pytest.raises(ModelFailed, match="must have 12 columns, got 2"):
        fitted.predict(np.zeros((3, 2), np.float32))
    with pytest.raises(ModelFailed, match="must have > 10 columns, got 2"):
        new_model(SETTINGS).fit(np.zeros((3, 2), np.float32), np.zeros(3, np.float32))


@needs_torch
def test_an_untrained_model_has_no_answer_and_no_bytes() -> None:
    """Nothing was learnt, so the next rung has to answer."""
    with pytest.raises(ModelFailed, match="not trained"):
        new_model(SETTINGS).predict(np.zeros((1, 12), np.float32))
    with pytest.raises(ModelFailed, match="not trained"):
        new_model(SETTINGS).to_bytes()


def test_without_pytorch_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for the LSTM on a bare installation reads what to install."""
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelFailed, match=r"pip install 'tidegate\[lstm\]'"):
        new_model(SETTINGS)
