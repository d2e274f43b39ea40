"""Where a benchmark's figures go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_figures(figures: Any, to: Path | str | None) -> None:
    """Write figures as JSON into a file; to the screen for None or ``-``."""
    text = json.dumps(figures, indent=2)
    if to is None or str(to) == "-":
        print(text)
    else:
        Path(to).write_text(text + "\n", encoding="utf-8")
