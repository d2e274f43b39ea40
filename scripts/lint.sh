#!/usr/bin/env bash
# Style, types and import contracts. Runs all four before it fails, so that one run shows everything.

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
exit $status
