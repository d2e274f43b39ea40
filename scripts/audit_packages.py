"""Known faults of the versions in constraints.txt, by pip-audit; says so where the advisories cannot be asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [
    "-m",
    "pip_audit",
    "--requirement",
    "constraints.txt",
    "--no-deps",
    "--disable-pip",
    "--format",
    "json",
]


def main() -> int:
    """0: none is known, or nobody could be asked; 1: some are."""
    done = subprocess.run(
        [sys.executable, *COMMAND, "--progress-spinner", "off"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError):
        print(f"pip-audit: SKIPPED, the advisory service cannot be reached: {_last_line(done.stderr)}")
        return 0
    faults = [
        f"{package['name']} {package['version']}: {fault['id']}, mended in {', '.join(fault['fix_versions']) or 'none yet'}"
        for package in packages
        for fault in package.get("vulns", ())
    ]
    asked = sum("skip_reason" not in package for package in packages)
    print(
        "\n".join(faults)
        if faults
        else f"pip-audit: {asked} of {len(packages)} packages asked for, no known fault"
    )
    if asked < len(packages):
        print(
            f"pip-audit: SKIPPED {len(packages) - asked} packages that the advisory service does not answer for"
        )
    return 1 if faults else 0


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no word of why"])[-1][:300]


if __name__ == "__main__":
    sys.exit(main())
