"""The default model: the weighted mean of trees and small networks, quantile by quantile.

Trees split where networks bend, so their errors differ and the mean's is smaller than either's.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from forecasting.history import Floats
from forecasting.model_catboost import CatBoostQuantiles
from forecasting.model_network import NetworkQuantiles, count_windows
from forecasting.quantile_model import ModelFailed, stored_arrays
from forecasting.settings import ForecastSettings

#: Of so many windows, and beside networks, a quarter of the trees, each with twice the weight, learns as much
#: as all of them in a quarter of the time. Of fewer it learns too much by heart.
MANY_WINDOWS: Final = 20_000
TREES_DIVISOR: Final = 4
LEARNING_RATE_FACTOR: Final = 2.0
#: Networks learn few windows by heart, trees less so. At this many both count alike in the mean, of many more
#: nearly the networks alone; below the fewest there are none.
EQUAL_WINDOWS: Final = 10_000
FEWEST_WINDOWS: Final = 1_000


@dataclass(frozen=True)
class _Members:
    trees: CatBoostQuantiles
    #: None where windows were too few.
    networks: NetworkQuantiles | None
    #: The networks' share of the mean, in [0, 1].
    network_share: float


class EnsembleQuantiles:
    """Trees and networks on the same rows; trees alone where there are few windows."""

    def __init__(self, settings: ForecastSettings) -> None:
        self._settings = settings
        self._members: _Members | None = None

    @property
    def sequence_steps(self) -> int:
        """The features say it all."""
        return 0

    def fit(self, x: Floats, y: Floats) -> None:
        """As the protocol says."""
        n_windows = count_windows(x)
        settings = self._settings if n_windows < MANY_WINDOWS else _fewer_trees(self._settings)
        trees, networks, share = CatBoostQuantiles(settings), None, 0.0
        trees.fit(x, y)
        if n_windows >= FEWEST_WINDOWS:
            networks = NetworkQuantiles(self._settings)
            networks.fit(x, y)
            share = n_windows / (n_windows + EQUAL_WINDOWS)
        self._members = _Members(trees, networks, share)

    def predict(self, x: Floats) -> Floats:
        """As the protocol says."""
        trees, networks, share = self._trained()
        if networks is None:
            return trees.predict(x)
        mean = networks.predict(x)
        mean *= np.float32(share)
        mean += np.float32(1 - share) * trees.predict(x)
        return mean  # of two that do not cross, so neither does it

    def to_bytes(self) -> bytes:
        """The members' bytes and the share, in a zip of NumPy arrays."""
        trees, networks, share = self._trained()
        network_body = networks.to_bytes() if networks is not None else b""
        stored = io.BytesIO()
        np.savez(
            stored,
            network_share=np.asarray(share, np.float64),
            trees=np.frombuffer(trees.to_bytes(), np.uint8),
            networks=np.frombuffer(network_body, np.uint8),
        )
        return stored.getvalue()

    def from_bytes(self, body: bytes) -> None:
        """As the protocol says."""
        parts = stored_arrays(body, "a stored ensemble", "trees", "networks", "network_share")
        share, network_body = parts["network_share"], parts["networks"].tobytes()
        if share.shape != () or share.dtype != np.float64 or not 0 <= share <= 1:
            raise ModelFailed(f"stored ensemble's network_share must lie in [0, 1], got {share}")
        trees = CatBoostQuantiles(self._settings)
        trees.from_bytes(parts["trees"].tobytes())
        networks = None
        if network_body:
            networks = NetworkQuantiles(self._settings)
            networks.from_bytes(network_body)
        self._members = _Members(trees, networks, float(share))

    def _trained(self) -> tuple[CatBoostQuantiles, NetworkQuantiles | None, float]:
        if self._members is None:
            raise ModelFailed("the ensemble was not trained")
        return self._members.trees, self._members.networks, self._members.network_share


def _fewer_trees(settings: ForecastSettings) -> ForecastSettings:
    return replace(
        settings,
        iterations=max(settings.iterations // TREES_DIVISOR, 1),
        learning_rate=min(settings.learning_rate * LEARNING_RATE_FACTOR, 1.0),
    )
