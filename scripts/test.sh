#!/usr/bin/env bash
# Runs every test. Those marked e2e need Open vSwitch, Mininet, Chromium and root, and run on their own: root is
# asked for them alone, and nothing traces the processes that they time.
#
# With CI=true whatever is missing is a failure; elsewhere it is named and passed over.

set -euo pipefail
cd "$(dirname "$0")/.."
pytest=(.venv/bin/python -m pytest)
no_tests_collected=5
skipped=()
report=$(mktemp /tmp/tidegate-e2e.XXXXXX)
trap 'rm -f "$report"' EXIT

in_ci() { [ "${CI:-}" = true ]; }

pass_over() {
    if in_ci; then
        printf 'test: %s\n' "$*" "with CI=true that is a failure" >&2
        exit 1
    fi
    skipped+=("$*")
}

# The packages whose tests must visit nearly all of them. Tracing makes Python half as fast again, so
# the tests of what is around them run without.
run_pure() {
    local package packages=(allocation forecasting telemetry topology) cov=() traced=() others=() status=0
    for package in "${packages[@]}"; do
        cov+=("--cov=$package")
        traced+=("tests/$package")
        others+=("--ignore=tests/$package")
    done
    mkdir -p build
    "${pytest[@]}" -m "not e2e" "${traced[@]}" "${cov[@]}" --cov-report=term --cov-report=json:build/coverage.json || status=1
    "${pytest[@]}" -m "not e2e" "${others[@]}" || status=1
    .venv/bin/python scripts/coverage_floor.py build/coverage.json "${packages[@]}" || status=1
    return $status
}

as_root=()
can_run_e2e() {
    if ! scripts/setup.sh --tests; then
        pass_over "tests on real switches: the packages named above are missing"
        return 1
    fi
    [ "$(id -u)" != 0 ] || return 0
    # -n: a test run must not stop to ask for a password.
    if sudo -n true 2>/dev/null; then
        # Files that root leaves in the checkout could not be removed by whoever owns it.
        as_root=(sudo -n env "CI=${CI:-}" PYTHONDONTWRITEBYTECODE=1)
        return 0
    fi
    pass_over "tests on real switches: they need root, and sudo asks for a password (sudo make test runs them)"
    return 1
}

run_e2e() {
    local status=0
    "${as_root[@]}" "${pytest[@]}" -m e2e -p no:cacheprovider --junitxml="$report" || status=$?
    if [ "$status" = $no_tests_collected ]; then
        pass_over "tests on real switches: no test is marked e2e"
    elif [ "$status" != 0 ]; then
        exit "$status"
    elif in_ci && grep -q '<skipped' "$report"; then
        echo "test: a test on real switches was skipped; with CI=true that is a failure" >&2
        exit 1
    fi
}

scripts/setup.sh --python
run_pure
if can_run_e2e; then run_e2e; fi
for what in "${skipped[@]}"; do printf 'test: skipped %s\n' "$what"; done
