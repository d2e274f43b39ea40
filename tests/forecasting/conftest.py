"""One small trained model, shared by the tests that only need some model."""

from __future__ import annotations

import pytest

from forecasting.forecaster import Forecaster
from forecasting.training import TrainedModel, train
from tests.forecasting.traffic import QUICK, history_of, recurring


@pytest.fixture(scope="session")
def trained() -> TrainedModel:
    return train(history_of(recurring(120, 30)), QUICK)


@pytest.fixture
def forecaster(trained: TrainedModel) -> Forecaster:
    made = Forecaster(QUICK)
    made.install(trained)
    return made
