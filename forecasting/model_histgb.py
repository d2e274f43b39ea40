"""scikit-learn's histogram boosting: as accurate as the default and always at hand.

It has no format of its own but pickle, so the trees are stored as plain arrays
and checked before use.
"""

from __future__ import annotations

import io
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from forecasting.history import Floats
from forecasting.quantile_model import ModelFailed, rearranged
from forecasting.settings import ForecastSettings

#: Columns of a stored tree node. The rest of scikit-learn's record only serves training.
_NODE: Final = np.dtype(
    [
        ("value", "<f8"),
        ("feature_idx", "<i8"),
        ("num_threshold", "<f8"),
        ("missing_go_to_left", "u1"),
        ("left", "<u4"),
        ("right", "<u4"),
        ("is_leaf", "u1"),
    ]
)
_NO_CATEGORIES: Final = np.zeros((0, 8), np.uint32)


class HistGradientQuantiles:
    """One of scikit-learn's histogram ensembles per quantile.

    As accurate as CatBoost and always at hand, but fifty times slower to
    predict; see the design page. Keeps the trees' arrays, not the estimators.
    """

    def __init__(self, settings: ForecastSettings) -> None:
        self._settings = settings
        self._n_features = 0
        self._start = np.zeros(len(settings.quantiles))
        self._trees: list[list[npt.NDArray[Any]]] = []

    @property
    def sequence_steps(self) -> int:
        """The features say it all."""
        return 0

    def fit(self, x: Floats, y: Floats) -> None:
        """As the protocol says."""
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        self._n_features = x.shape[1]
        self._trees = []
        # scikit-learn cannot bin a column without any value; a constant says as little.
        x = np.where(np.isnan(x).all(axis=0), np.float32(0), x)
        with threadpool_limits(limits=self._settings.threads, user_api="openmp"):
            for index, quantile in enumerate(self._settings.quantiles):
                regressor = HistGradientBoostingRegressor(
                    loss="quantile",
                    quantile=quantile,
                    max_iter=self._settings.iterations,
                    max_depth=self._settings.depth,
                    learning_rate=self._settings.learning_rate,
                    max_bins=64,
                    early_stopping=False,
                    random_state=self._settings.seed,
                ).fit(x, y)
                self._start[index] = float(np.ravel(regressor._baseline_prediction)[0])
                self._trees.append([stage[0].nodes for stage in regressor._predictors])

    def predict(self, x: Floats) -> Floats:
        """As the protocol says."""
        from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

        rows = np.ascontiguousarray(x, np.float64)
        result = np.empty((len(rows), len(self._start)))
        result[:] = self._start
        no_map = np.zeros(0, np.uint32)
        for column, trees in enumerate(self._trees):
            for nodes in trees:
                tree = TreePredictor(nodes, _NO_CATEGORIES, _NO_CATEGORIES)
                result[:, column] += tree.predict(rows, _NO_CATEGORIES, no_map, self._settings.threads)
        return rearranged(result.astype(np.float32))

    def to_bytes(self) -> bytes:
        """The trees as NumPy arrays in a zip, without pickle."""
        stored = io.BytesIO()
        flat = [nodes for trees in self._trees for nodes in trees]
        np.savez_compressed(
            stored,
            n_features=np.int64(self._n_features),
            start=self._start,
            trees_per_quantile=np.array([len(trees) for trees in self._trees], np.int64),
            nodes_per_tree=np.array([len(nodes) for nodes in flat], np.int64),
            nodes=np.concatenate([_packed(nodes) for nodes in flat] or [np.zeros(0, _NODE)]),
        )
        return stored.getvalue()

    def from_bytes(self, body: bytes) -> None:
        """As the protocol says; what could lead a walk outside its tree is refused."""
        try:
            with np.load(io.BytesIO(body), allow_pickle=False) as stored:
                parts = {name: stored[name] for name in stored.files}
            n_features, start = int(parts["n_features"]), parts["start"]
            flat = np.split(parts["nodes"], np.cumsum(parts["nodes_per_tree"])[:-1])
            bounds = np.cumsum(parts["trees_per_quantile"])
        except (ValueError, KeyError, TypeError, OSError, EOFError, IndexError, BadZipFile) as error:
            raise ModelFailed(f"bytes are not a stored forest: {error!r}") from None
        whole = len(start) == len(self._settings.quantiles) == len(bounds) and bounds[-1] == len(flat)
        if not whole or not all(_walkable(nodes, n_features) for nodes in flat):
            raise ModelFailed("stored forest is malformed or has other quantiles")
        self._n_features, self._start = n_features, start
        self._trees = [
            [_unpacked(nodes) for nodes in flat[stop - size : stop]]
            for size, stop in zip(parts["trees_per_quantile"], bounds, strict=True)
        ]


def _packed(nodes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    packed = np.zeros(len(nodes), _NODE)
    for name in _NODE.names or ():
        packed[name] = nodes[name]
    return packed


def _unpacked(packed: npt.NDArray[Any]) -> npt.NDArray[Any]:
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    nodes = np.zeros(len(packed), PREDICTOR_RECORD_DTYPE)
    for name in _NODE.names or ():
        nodes[name] = packed[name]
    return nodes


def _walkable(nodes: npt.NDArray[Any], n_features: int) -> bool:
    """Every walk from the root ends in a leaf of this tree.

    Children come after their parent, so a walk cannot turn in circles.
    """
    if nodes.dtype != _NODE or len(nodes) == 0:
        return False
    inner = nodes["is_leaf"] == 0
    own = np.flatnonzero(inner)
    children = np.stack([nodes["left"][inner], nodes["right"][inner]]).astype(np.int64)
    used = nodes["feature_idx"][inner]
    return bool(
        np.isfinite(nodes["value"]).all()
        and (children > own).all()
        and (children < len(nodes)).all()
        and (used >= 0).all()
        and (used < n_features).all()
    )
