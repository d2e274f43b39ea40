"""One typed decorator for the loops that Numba compiles.

Compiled code is kept on disk beside the module, so only the very first run
after an installation waits for the compiler (about 2 s). The loops hold no
lock on the interpreter: two directions can be solved in two threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Function = TypeVar("Function", bound=Callable[..., object])
Rates = npt.NDArray[np.float64]
#: Whole bits per second: what grants are made of, so that sums are exact.
Bits = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int32]
Codes = npt.NDArray[np.uint8]

#: Largest rate understood, 4.5 Pbit/s. Below it a float still tells half a bit/s apart,
#: which is what lets a water level found in floats be turned into exact whole bits.
MAX_RATE_BPS: Final = 2**52
#: Sums of many such rates stop growing here, instead of wrapping around.
FULL_BPS: Final = 2**62


def compiled(function: Function) -> Function:
    """The same function as machine code; the original stays reachable as ``py_func``."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def summing(function: Function) -> Function:
    """As ``compiled``; sums may be added up in any order, which lets them use vector instructions."""
    return cast(Function, numba.njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"})(function))
