#!/usr/bin/env bash
# Tests of the optional forecasting models, with nothing skipped. PyTorch weighs more than all the rest
# together, so it goes into an environment beside .venv, which lends it everything else.

set -euo pipefail
cd "$(dirname "$0")/.."
venv=build/venv-extras
python=$(pwd)/.venv/bin/python

if [ ! -x "$venv/bin/python" ]; then
    mkdir -p build
    "$python" -m venv --without-pip "$venv"
fi
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    >"$(echo "$venv"/lib/python3.*/site-packages)/tidegate.pth"

# Names and versions without the project itself, which .venv has already.
extras=(statsforecast torch)
"$python" -m pip --python "$venv/bin/python" install -q --disable-pip-version-check \
    -c constraints.txt "${extras[@]}"

report=$(mktemp /tmp/tidegate-extras.XXXXXX)
trap 'rm -f "$report"' EXIT
"$venv/bin/python" -m pytest -p no:cacheprovider --junitxml="$report" \
    tests/forecasting/test_models.py tests/forecasting/test_models_lstm.py tests/forecasting/test_statistical.py
if grep -q '<skipped' "$report"; then
    echo "test-extras: a test was skipped, though its extra is installed" >&2
    exit 1
fi
