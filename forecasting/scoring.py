"""How good a set of quantiles was, once the truth is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forecasting.history import Floats


def pinball_loss(
    forecast: Floats, realised: Floats, quantile: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Mean pinball loss over the quantiles, in the unit of the forecast.

    Twice its integral over all quantiles is the CRPS; smaller is better and
    only the true quantiles minimise it.

    forecast : shape (..., K); realised : shape (...); quantile : shape (K,).
    Gives shape (...); NaN where the truth is NaN.
    """
    error = np.asarray(realised, np.float64)[..., None] - forecast
    loss: npt.NDArray[np.float64] = np.maximum(quantile * error, (quantile - 1) * error).mean(axis=-1)
    return loss


def coverage(forecast: Floats, realised: Floats) -> npt.NDArray[np.float64]:
    """Share of known truths at or below each quantile, shape (K,); NaN without any.

    forecast : shape (..., K); realised : shape (...).
    """
    known = ~np.isnan(realised)
    if not known.any():
        return np.full(forecast.shape[-1], np.nan)
    return np.asarray((realised[known][:, None] <= forecast[known]).mean(axis=0))
