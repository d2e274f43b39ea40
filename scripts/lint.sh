#!/usr/bin/env bash
# Style, types, import contracts, and what is known to be unsafe. Runs all before it fails, so that one run shows everything.

set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
status=0

run() {
    printf '== %s\n' "$*"
    "$bin/$1" "${@:2}" || status=1
}

run ruff check .
run ruff format --check .
run mypy
run lint-imports
# Low severity, Markup (B704), and SQL (B608) are what ruff's S rules judge already, each ignored one explained.
run bandit --quiet --recursive --severity-level medium --skip B704,B608 \
    allocation forecasting mininet_scenarios northbound planner ryu_apps scripts telemetry topology
run python scripts/audit_packages.py
exit $status
