"""The global models by name: one small protocol, several ways to learn.

A new kind is a module with one class that follows ``QuantileModel``, a line
here and a name in ``settings.MODELS``.
"""

from __future__ import annotations

from forecasting.quantile_model import ModelFailed, QuantileModel
from forecasting.settings import ForecastSettings

__all__ = ["ModelFailed", "QuantileModel", "new_model"]


def new_model(settings: ForecastSettings) -> QuantileModel:
    """An untrained model of the kind that the settings name.

    Raises
    ------
    ModelFailed : when it needs a library that is not installed; names the extra that brings it.
    """
    # Each import is heavy or optional, and a process uses one kind.
    if settings.model == "hist_gradient_boosting":
        from forecasting.model_histgb import HistGradientQuantiles

        return HistGradientQuantiles(settings)
    if settings.model == "lstm":
        from forecasting.model_lstm import LstmQuantiles

        return LstmQuantiles(settings)
    if settings.model == "network":
        from forecasting.model_network import NetworkQuantiles

        return NetworkQuantiles(settings)
    if settings.model == "catboost":
        from forecasting.model_catboost import CatBoostQuantiles

        return CatBoostQuantiles(settings)
    from forecasting.model_ensemble import EnsembleQuantiles

    return EnsembleQuantiles(settings)
