"""CatBoost: the default, since all quantiles cost it one walk through each tree."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from forecasting.history import Floats
from forecasting.quantile_model import ModelFailed, rearranged
from forecasting.settings import ForecastSettings


class CatBoostQuantiles:
    """One CatBoost ensemble whose leaves hold all quantiles at once.

    Trees of one shape predict 600,000 rows in about a tenth of a second, which
    is why this is the default.
    """

    def __init__(self, settings: ForecastSettings) -> None:
        import catboost  # takes 0.4 s, and only a model needs it

        self._settings = settings
        self._regressor = catboost.CatBoostRegressor(
            loss_function="MultiQuantile:alpha=" + ",".join(map(repr, settings.quantiles)),
            iterations=settings.iterations,
            depth=settings.depth,
            learning_rate=settings.learning_rate,
            border_count=64,
            boosting_type="Plain",
            # Each tree sees half of the rows: twice the rows for the same time, and less noise learnt.
            bootstrap_type="Bernoulli",
            subsample=0.5,
            # Neighbouring windows say nearly the same: leaves need more of them than it seems.
            l2_leaf_reg=30.0,
            thread_count=settings.threads,
            random_seed=settings.seed,
            allow_writing_files=False,
            verbose=False,
        )

    @property
    def sequence_steps(self) -> int:
        """The features say it all."""
        return 0

    def fit(self, x: Floats, y: Floats) -> None:
        """As the protocol says."""
        self._regressor.fit(x, y)

    def predict(self, x: Floats) -> Floats:
        """As the protocol says."""
        raw = self._regressor.predict(x, thread_count=self._settings.threads)
        return rearranged(np.asarray(raw, np.float32).reshape(len(x), len(self._settings.quantiles)))

    def to_bytes(self) -> bytes:
        """CatBoost's own binary format."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.cbm")
            self._regressor.save_model(str(path))
            return path.read_bytes()

    def from_bytes(self, body: bytes) -> None:
        """As the protocol says."""
        try:
            self._regressor.load_model(blob=body)
        except Exception as error:  # noqa: BLE001 - CatBoost documents no kinds of errors
            raise ModelFailed(f"bytes are not a CatBoost model: {error}") from None
