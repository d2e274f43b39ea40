"""Times and rates as people write them on a command line."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Final

from northbound.cli_shared import MISUSED, stop

RATE_HELP: Final = "Mbit/s, or UP/DOWN"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LENGTH: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhdw])")


def seconds(text: str, option: str) -> float:
    """The seconds of ``90s``, ``30m``, ``2h``, ``1d`` or ``1w``; anything else ends the command."""
    match = _LENGTH.fullmatch(text)
    if match is None or float(match[1]) == 0:
        stop(MISUSED, f"tidegate: {option} must be like 90s, 30m, 2h, 1d or 1w, got {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def epoch_s(text: str, option: str) -> float:
    """The epoch seconds of a date and time, of this machine's zone if it has none of its own."""
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        example = "2026-12-24T18:00 or 2026-12-24T18:00+01:00"
        stop(MISUSED, f"tidegate: {option} must be a date and time like {example}, got {text!r}")


def since_s(text: str, option: str, now: float) -> float:
    """Epoch seconds: so long before ``now``, or a date and time."""
    return now - seconds(text, option) if _LENGTH.fullmatch(text) else epoch_s(text, option)


def rate_mbps(text: str, option: str) -> dict[str, float] | None:
    """A rate for each direction from ``20`` (both) or ``5/20``; None where nothing is given."""
    if not text:
        return None
    try:
        rates = [float(part) for part in text.split("/")]
    except ValueError:
        rates = []
    if len(rates) not in (1, 2) or not all(math.isfinite(rate) and rate >= 0 for rate in rates):
        stop(MISUSED, f"tidegate: {option} must be {RATE_HELP} with rates >= 0, got {text!r}")
    return {"up": rates[0], "down": rates[-1]}
