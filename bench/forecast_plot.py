"""Forecast fans against what came, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib import dates
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from forecasting.quantiles import nearest

Doubles = npt.NDArray[np.float64]

#: Colours that people with any colour vision tell apart (Okabe and Ito).
_CAME: Final = "#000000"
_FAN: Final = "#0072B2"


def _bands(quantile: Doubles) -> list[tuple[int, int]]:
    """Central bands, the widest first: pairs of levels that add up to one."""
    pairs = [(low, nearest(quantile, 1 - level)) for low, level in enumerate(quantile)]
    return [
        (low, high) for low, high in pairs if low < high and abs(quantile[low] + quantile[high] - 1) < 1e-6
    ]


def save_fans(
    file: Path,
    names: Sequence[str],
    time: Doubles,
    came: npt.NDArray[np.float32],
    fan: npt.NDArray[np.float32],
    quantile: Doubles,
    horizon_s: float,
) -> None:
    """Draw one panel a series: what came, and the fan issued ``horizon_s`` earlier.

    Parameters
    ----------
    time : shape (n,)        Epoch seconds at which each step ended.
    came : shape (n, S)      bit/s; NaN is left out.
    fan : shape (n, S, K)    bit/s, by the step that it is of.
    """
    figure = Figure(figsize=(12, 2.4 * len(names) + 1), layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(len(names), 1, sharex=True))
    when = np.array(time * 1e6, "datetime64[us]")
    for series, (axes, name) in enumerate(zip(panels, names, strict=True)):
        mega = fan[:, series] / 1e6
        for low, high in _bands(quantile):
            label = f"{quantile[low]:.0%} to {quantile[high]:.0%}"
            axes.fill_between(when, mega[:, low], mega[:, high], color=_FAN, alpha=0.22, lw=0, label=label)
        middle = nearest(quantile)
        axes.plot(when, mega[:, middle], color=_FAN, lw=1.2, label=f"{quantile[middle]:.0%}")
        axes.plot(when, came[:, series] / 1e6, color=_CAME, lw=0.9, label="what came")
        axes.set_title(name, loc="left", fontsize="medium")
        axes.set_ylabel("Mbit/s")
        axes.set_ylim(bottom=0)
    # Matplotlib's dates have no type information.
    locator: Any = dates.AutoDateLocator()  # type: ignore[no-untyped-call]
    formatter: Any = dates.ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(formatter)
    panels[-1].set_xlabel(f"time (UTC); forecast {horizon_s:g} s earlier")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize="small", ncols=len(labels))
    figure.savefig(file, dpi=90)
