"""The default model: the weighted mean of trees and small networks, quantile by quantile.

Trees split where networks bend, so their errors differ and the mean's is smaller than either's.
"""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np

from forecasting.history import Floats
from forecasting.model_catboost import CatBoostQuantiles
from forecasting.model_network import NetworkQuantiles, count_windows
from forecasting.quantile_model import ModelFailed, QuantileModel, stored_arrays
from forecasting.settings import ForecastSettings

#: Networks learn few windows by heart, trees less so. At ``EQUAL_WINDOWS`` both count alike in the mean; below the
#: fewest there are no networks, and from many on no trees: they would add nothing but twice the time of a forecast.
FEWEST_WINDOWS: Final = 1_000
EQUAL_WINDOWS: Final = 10_000
MANY_WINDOWS: Final = 40_000


class EnsembleQuantiles:
    """Trees and networks on the same rows; trees alone where windows are few, networks alone where they are many."""

    def __init__(self, settings: ForecastSettings) -> None:
        self._settings = settings
        #: Those that have a share in the mean; none before training.
        self._members: dict[str, QuantileModel] = {}
        #: The networks' share of the mean, in [0, 1].
        self._network_share = 0.0

    @property
    def sequence_steps(self) -> int:
        """The features say it all."""
        return 0

    def fit(self, x: Floats, y: Floats) -> None:
        """As the protocol says."""
        share = _network_share(count_windows(x))
        members = _new_members(self._settings, share)
        for member in members.values():
            member.fit(x, y)
        self._members, self._network_share = members, share

    def predict(self, x: Floats) -> Floats:
        """As the protocol says."""
        made = [member.predict(x) for member in self._trained().values()]
        if len(made) == 1:
            return made[0]
        trees, networks = made
        networks *= np.float32(self._network_share)
        networks += np.float32(1 - self._network_share) * trees
        return networks  # the mean of two that do not cross, so neither does it

    def to_bytes(self) -> bytes:
        """The members' bytes and the networks' share, in a zip of NumPy arrays."""
        parts: dict[str, Any] = {
            name: np.frombuffer(member.to_bytes(), np.uint8) for name, member in self._trained().items()
        }
        parts["network_share"] = np.asarray(self._network_share, np.float64)
        stored = io.BytesIO()
        np.savez(stored, **parts)
        return stored.getvalue()

    def from_bytes(self, body: bytes) -> None:
        """As the protocol says."""
        parts = stored_arrays(body, "a stored ensemble", "network_share")
        share = parts["network_share"]
        if share.shape != () or share.dtype != np.float64 or not 0 <= share <= 1:
            raise ModelFailed(f"stored ensemble's network_share must lie in [0, 1], got {share}")
        members = _new_members(self._settings, float(share))
        for name, member in members.items():
            if name not in parts:
                raise ModelFailed(f"stored ensemble must have {name} at network_share {share}, has none")
            member.from_bytes(parts[name].tobytes())
        self._members, self._network_share = members, float(share)

    def _trained(self) -> dict[str, QuantileModel]:
        if not self._members:
            raise ModelFailed("the ensemble was not trained")
        return self._members


def _new_members(settings: ForecastSettings, network_share: float) -> dict[str, QuantileModel]:
    """Those with a share in the mean, by the names they are stored under, trees first."""
    members: dict[str, QuantileModel] = {}
    if network_share < 1:
        members["trees"] = CatBoostQuantiles(settings)
    if network_share > 0:
        members["networks"] = NetworkQuantiles(settings)
    return members


def _network_share(n_windows: int) -> float:
    """The networks' share of the mean, in [0, 1]."""
    if n_windows < FEWEST_WINDOWS:
        return 0.0
    return 1.0 if n_windows >= MANY_WINDOWS else n_windows / (n_windows + EQUAL_WINDOWS)
