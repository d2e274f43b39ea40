"""CatBoost: the default, since all quantiles cost it one walk through each tree."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from forecasting.history import Floats
from forecasting.quantile_model import ModelFailed, rearranged
from forecasting.settings import ForecastSettings

#: What leaves are shrunk by: between these, as many as rows over this.
LEAST_SHRINK: Final = 3.0
MOST_SHRINK: Final = 30.0
ROWS_PER_SHRINK: Final = 3000.0
#: Trees: one for so many rows, at least so many.
ROWS_PER_TREE: Final = 100
FEWEST_TREES: Final = 40


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
        # Neighbouring windows say nearly the same, so leaves need more of them than it seems;
        # but of few rows in all, much shrinking would leave nothing learnt. And few rows are soon
        # learnt by heart: a day of one series is worth some dozen trees.
        shrink = min(max(len(x) / ROWS_PER_SHRINK, LEAST_SHRINK), MOST_SHRINK)
        trees = min(max(len(x) // ROWS_PER_TREE, FEWEST_TREES), self._settings.iterations)
        self._regressor.set_params(l2_leaf_reg=shrink, iterations=trees)
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
