"""The small protocol behind which the global models stand.

A model learns all quantiles of a target from rows in which NaN is a value. Its
bytes hold numbers, never code, so a file that somebody swapped can spoil a
forecast and nothing else.
"""

from __future__ import annotations

import io
import zlib
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from forecasting.history import Floats


class ModelFailed(Exception):
    """A model could not be made or read, or gave no usable answer; use the next rung."""


class QuantileModel(Protocol):
    """Learns and predicts several quantiles of one target.

    A model that reads the window itself says in ``sequence_steps`` how much of
    it. Its rows then end in that many columns more: demand in the units of the
    row, oldest first, the cutoff last, NaN in gaps.
    """

    @property
    def sequence_steps(self) -> int:
        """Columns of the window that follow the features, 0 for none."""

    def fit(self, x: Floats, y: Floats) -> None:
        """Learn from x of shape (n, F + sequence_steps) and y of shape (n,); NaN in x is a value."""

    def predict(self, x: Floats) -> Floats:
        """Quantiles of shape (n, K), not falling along K."""

    def to_bytes(self) -> bytes:
        """What ``from_bytes`` turns back into a model that predicts the same."""

    def from_bytes(self, body: bytes) -> None:
        """Become the model that these bytes hold; raises ``ModelFailed`` if they hold none."""


def stored_arrays(body: bytes, what: str, *wanted: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays that ``np.savez`` wrote, read without pickle; ``wanted`` are among them.

    Raises
    ------
    ModelFailed : where the bytes are nothing of the kind; ``what`` says what they should be.
    """
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as stored:
            parts = {name: stored[name] for name in (*stored.files, *wanted)}
    except (
        ValueError,
        KeyError,
        TypeError,
        OSError,
        EOFError,
        AttributeError,
        BadZipFile,
        zlib.error,
    ) as error:
        raise ModelFailed(f"bytes are not {what}: {error!r}") from None
    return parts


def rearranged(quantiles: Floats) -> Floats:
    """The same array with each row sorted: quantiles that do not cross.

    Sorting never raises the pinball loss.
    """
    quantiles.sort(axis=1)
    return quantiles
