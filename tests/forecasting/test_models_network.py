"""The networks and their mean with the trees: what they share, what they ignore, what they refuse."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from forecasting import model_ensemble, model_network
from forecasting.features import NAMES, SERIES_FEATURES
from forecasting.model_catboost import CatBoostQuantiles
from forecasting.model_ensemble import EQUAL_WINDOWS, FEWEST_WINDOWS, MANY_WINDOWS, EnsembleQuantiles
from forecasting.model_network import NetworkQuantiles, count_windows
from forecasting.quantile_model import ModelFailed, QuantileModel
from forecasting.settings import ForecastSettings
from forecasting.windows import rows_of

SETTINGS = ForecastSettings(iterations=20, depth=3)
N_HORIZONS = 3
HORIZON = len(SERIES_FEATURES)


def rows(n_windows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows at three horizons: y spreads by a feature of the window times one of the horizon."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(1, 3, (n_windows, N_HORIZONS, len(NAMES))).astype(np.float32)
    x[:, :, :HORIZON] = x[:, :1, :HORIZON]
    x[:, :, HORIZON] = (1, 2, 3)
    width = x[:, :, 0] * x[:, :, HORIZON]
    y = (rng.uniform(0, 1, width.shape) * width).astype(np.float32)
    return x.reshape(-1, len(NAMES)), y.reshape(-1)


@pytest.fixture(scope="module")
def fitted() -> NetworkQuantiles:
    """Trained on rows of which only some columns vary: of noise in dozens it would learn too much by heart."""
    x, y = rows(4000, 0)
    x[:, 3:HORIZON], x[:, HORIZON + 1 :] = 1.0, 1.0
    model = NetworkQuantiles(SETTINGS)
    model.fit(x, y)
    return model


def test_it_learns_how_window_and_horizon_act_together(fitted: NetworkQuantiles) -> None:
    """The 0.9 quantile is 0.9 times the product of a feature of each."""
    x, _ = rows(500, 1)
    wanted = np.outer(x[:, 0] * x[:, HORIZON], SETTINGS.quantiles)
    off = np.abs(fitted.predict(x) - wanted).mean(axis=0)
    assert (off < 0.06 * wanted.mean()).all(), off


def test_rows_are_predicted_alike_in_any_company(fitted: NetworkQuantiles) -> None:
    """What a window shares is reckoned once, and nobody sees it."""
    x, _ = rows(1500, 2)
    together = fitted.predict(x)
    one_by_one = np.concatenate([fitted.predict(x[row : row + 1]) for row in range(60)])
    assert np.allclose(together[:60], one_by_one, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(x))
    assert np.allclose(fitted.predict(x[order]), together[order], atol=1e-5)


def test_the_gradient_is_that_of_the_pinball_loss() -> None:
    """Against differences of the loss itself, in every layer; in double precision."""
    rng = np.random.default_rng(3)
    x, y = rows(8, 4)
    level = np.asarray(SETTINGS.quantiles)
    inputs = model_network._Inputs.of(x, model_network._Scale.of(x))
    inputs = replace(inputs, window=inputs.window.astype(float), horizon=inputs.horizon.astype(float))
    start = model_network._new_network(inputs, y, level.astype(np.float32), rng)
    net = model_network._Network(start.weights.astype(float), start.shapes)
    chosen = np.array([5, 0, 3])
    taken, _ = rows_of(chosen, inputs.first_row)
    gradient = np.zeros_like(net.weights)
    model_network._pinball_gradient(net, inputs, y, level, chosen, gradient)

    def loss(weights: np.ndarray) -> float:
        error = y[:, None] - model_network._Network(weights, net.shapes).predict(inputs).astype(float)
        return float(np.maximum(level * error, (level - 1) * error)[taken].mean())

    def slope(at: int) -> float:
        step = np.zeros_like(net.weights)
        step[at] = 3e-3
        return (loss(net.weights + step) - loss(net.weights - step)) / 6e-3

    sizes = np.cumsum([0, *((inputs + 1) * outputs for inputs, outputs in net.shapes)])
    for first, after in pairwise(sizes):
        layer = gradient[first:after]
        # The largest: elsewhere 32-bit answers and the loss's kinks hide the slope.
        steepest = first + np.argsort(-np.abs(layer))[:4]
        wanted = [slope(int(at)) for at in steepest]
        assert gradient[steepest] == pytest.approx(wanted, rel=0.1, abs=2e-4)


def test_a_column_that_said_nothing_in_training_says_nothing_later() -> None:
    """Last week's demand is unknown in the first week: its weights were never learnt."""
    x, y = rows(400, 5)
    x[:, 5] = np.nan
    x[:, 6] = 7.0
    model = NetworkQuantiles(SETTINGS)
    model.fit(x, y)
    before = model.predict(x)
    x[:, 5], x[:, 6] = 2.0, 1e9
    assert np.array_equal(model.predict(x), before)


def test_what_was_never_seen_gives_a_bounded_answer(fitted: NetworkQuantiles) -> None:
    """Gaps, infinities and 1e30 are answered with numbers no larger than training's few times over."""
    x, _ = rows(50, 6)
    usual = np.abs(fitted.predict(x)).max()
    for strange in (np.nan, np.inf, -np.inf, 1e30, -1e30):
        one = x.copy()
        one[:, ::3] = strange
        answer = fitted.predict(one)
        assert np.isfinite(answer).all()
        assert (np.diff(answer, axis=1) >= 0).all()
        assert np.abs(answer).max() < 50 * usual
    assert np.isfinite(fitted.predict(np.full_like(x, np.nan))).all()


def test_the_same_seed_gives_the_same_model() -> None:
    x, y = rows(300, 7)
    one, other, third = (NetworkQuantiles(replace(SETTINGS, seed=seed)) for seed in (1, 1, 2))
    for model in (one, other, third):
        model.fit(x, y)
    assert np.array_equal(one.predict(x), other.predict(x))
    assert not np.array_equal(one.predict(x), third.predict(x))


def test_a_target_that_is_no_number_makes_no_model() -> None:
    """A training that ran away is told, not served."""
    x, y = rows(300, 8)
    y[7] = np.nan
    with pytest.raises(ModelFailed, match="ran away"):
        NetworkQuantiles(SETTINGS).fit(x, y)


def test_an_untrained_model_has_no_answer_and_no_bytes() -> None:
    for model in (NetworkQuantiles(SETTINGS), EnsembleQuantiles(SETTINGS)):
        with pytest.raises(ModelFailed, match="not trained"):
            model.predict(rows(2, 0)[0])
        with pytest.raises(ModelFailed, match="not trained"):
            model.to_bytes()


def test_rows_of_other_columns_are_refused(fitted: NetworkQuantiles) -> None:
    with pytest.raises(ModelFailed, match=f"must have {len(NAMES)} columns, got {len(NAMES) - 1}"):
        fitted.predict(rows(2, 0)[0][:, 1:])


def _cut(parts: dict[str, np.ndarray]) -> None:
    parts["weights"] = parts["weights"][:, 1:]


def _none(parts: dict[str, np.ndarray]) -> None:
    parts["weights"] = parts["weights"][:0]


def _infinite(parts: dict[str, np.ndarray]) -> None:
    parts["weights"][0, 0] = np.inf


def _double(parts: dict[str, np.ndarray]) -> None:
    parts["centre"] = parts["centre"].astype(float)


def _uneven(parts: dict[str, np.ndarray]) -> None:
    parts["gain"] = parts["gain"][1:]


@pytest.mark.parametrize("spoil", [_cut, _none, _infinite, _double, _uneven])
def test_stored_numbers_that_do_not_fit_are_refused(
    fitted: NetworkQuantiles, spoil: Callable[[dict[str, np.ndarray]], None]
) -> None:
    with np.load(io.BytesIO(fitted.to_bytes())) as stored:
        parts = {name: stored[name] for name in stored.files}
    spoil(parts)
    body = io.BytesIO()
    np.savez(body, **parts)
    with pytest.raises(ModelFailed, match="stored networks"):
        NetworkQuantiles(SETTINGS).from_bytes(body.getvalue())


def assert_answers_as(member: QuantileModel, n_windows: int, seed: int) -> None:
    """On so many windows the ensemble says what this member says by itself, also when read back."""
    x, y = rows(n_windows, seed)
    ensemble = EnsembleQuantiles(SETTINGS)
    for model in (ensemble, member):
        model.fit(x, y)
    assert np.array_equal(ensemble.predict(x), member.predict(x))
    again = EnsembleQuantiles(SETTINGS)
    again.from_bytes(ensemble.to_bytes())
    assert np.array_equal(again.predict(x), member.predict(x))


def test_few_windows_are_left_to_the_trees() -> None:
    """A network learns them by heart; the mean is the trees' own answer, with all the trees asked for."""
    assert_answers_as(CatBoostQuantiles(SETTINGS), FEWEST_WINDOWS - 1, 9)


def test_a_window_drawn_twice_counts_once() -> None:
    """Else a single series that is drawn over and over would look like plenty to learn from."""
    x, _ = rows(500, 14)
    assert count_windows(x) == count_windows(np.concatenate([x, x[::-1], x])) == 500
    x[0, 0] = np.nan
    assert count_windows(np.concatenate([x, x])) == count_windows(x)
    assert count_windows(x[:0]) == 0


@pytest.mark.parametrize("n_windows", [FEWEST_WINDOWS, MANY_WINDOWS - 1])
def test_the_more_windows_the_more_the_networks_say(n_windows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is the members' weighted mean; networks and trees count alike at EQUAL_WINDOWS."""
    monkeypatch.setattr(model_network, "PASSES", 1)
    x, y = rows(n_windows, 10)
    assert count_windows(x) == n_windows
    ensemble = EnsembleQuantiles(SETTINGS)
    ensemble.fit(x, y)
    members, share = ensemble._trained(), ensemble._network_share
    assert share == pytest.approx(1 / (1 + EQUAL_WINDOWS / n_windows))
    wanted = share * members["networks"].predict(x) + (1 - share) * members["trees"].predict(x)
    assert np.allclose(ensemble.predict(x), wanted, atol=1e-5)
    again = EnsembleQuantiles(SETTINGS)
    again.from_bytes(ensemble.to_bytes())
    assert np.array_equal(again.predict(x), ensemble.predict(x))


def test_many_windows_are_left_to_the_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees would add nothing, and more than double the time."""
    monkeypatch.setattr(model_network, "PASSES", 1)
    monkeypatch.setattr(model_ensemble, "MANY_WINDOWS", FEWEST_WINDOWS)
    assert_answers_as(NetworkQuantiles(SETTINGS), FEWEST_WINDOWS, 12)


def test_a_member_that_is_missing_is_refused() -> None:
    """A share says who must be there."""
    x, y = rows(FEWEST_WINDOWS - 1, 13)
    ensemble = EnsembleQuantiles(SETTINGS)
    ensemble.fit(x, y)
    with np.load(io.BytesIO(ensemble.to_bytes())) as stored:
        trees = stored["trees"]
    body = io.BytesIO()
    np.savez(body, trees=trees, network_share=np.asarray(0.5))
    with pytest.raises(ModelFailed, match=r"must have networks at network_share 0\.5"):
        EnsembleQuantiles(SETTINGS).from_bytes(body.getvalue())


def test_a_share_outside_its_bounds_is_refused() -> None:
    x, y = rows(FEWEST_WINDOWS, 11)
    ensemble = EnsembleQuantiles(SETTINGS)
    ensemble.fit(x, y)
    with np.load(io.BytesIO(ensemble.to_bytes())) as stored:
        parts = {name: stored[name] for name in stored.files}
    for share in (-0.1, 1.1, float("nan")):
        body = io.BytesIO()
        np.savez(body, **{**parts, "network_share": np.asarray(share)})
        with pytest.raises(ModelFailed, match="network_share must lie in"):
            EnsembleQuantiles(SETTINGS).from_bytes(body.getvalue())
