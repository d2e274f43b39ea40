"""Fails when the tests leave too much of the pure packages unvisited.

pytest-cov's own threshold mixes lines and branches; a package of long straight functions could hide
every untested branch in that figure, so branches are held to the floor by themselves.

    python scripts/coverage_floor.py build/coverage.json allocation forecasting ...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FLOOR_PERCENT = 90.0


def percent(covered: int, total: int) -> float:
    """Share covered, in percent; of nothing, all of it."""
    return 100.0 * covered / total if total else 100.0


def totals(report: dict[str, Any], package: str) -> dict[str, int]:
    """The package's counts, summed over its files."""
    counts = {"covered_lines": 0, "num_statements": 0, "covered_branches": 0, "num_branches": 0}
    for path, file in report["files"].items():
        if Path(path).parts[0] == package:
            for key in counts:
                counts[key] += file["summary"][key]
    return counts


def main(report_path: str, *packages: str) -> int:
    """Print a line for each package and one for all; 0 when the last one passes."""
    report = json.loads(Path(report_path).read_text())
    rows = {package: totals(report, package) for package in packages}
    rows["together"] = {key: sum(row[key] for row in rows.values()) for key in rows[packages[0]]}
    for name, row in rows.items():
        lines = percent(row["covered_lines"], row["num_statements"])
        branches = percent(row["covered_branches"], row["num_branches"])
        print(f"coverage {name:12} lines {lines:5.1f} %  branches {branches:5.1f} %")
    if min(lines, branches) <= FLOOR_PERCENT:
        print(f"coverage of the pure packages must be > {FLOOR_PERCENT:g} %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
