# `make` alone says what there is. Every target does the set-up it needs; when nothing is missing that is quick.

PY := .venv/bin/python
# Network namespaces and switches need root; nothing else here does.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)

# PYTHON=python3.12 chooses the interpreter of a new .venv
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup demo replay test test-extras lint format clean distclean

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

setup: ## OS packages that are missing, .venv, Ryu and the libraries; nothing else
	@scripts/setup.sh

demo: setup ## real switches, real traffic, meters set by forecasts: about four minutes (root or sudo)
	@$(AS_ROOT) $(PY) -m mininet_scenarios.demo $(ARGS)

replay: ## the same planner fed from a recorded trace, in virtual time; no root
	@scripts/setup.sh --python
	@.venv/bin/tidegate replay $(ARGS)

test: ## every test, those on real switches included (root or sudo; says what it skips without)
	@scripts/test.sh

test-extras: ## the tests of the optional forecasting models, in an environment of their own (1 GB, build/venv-extras)
	@scripts/setup.sh --python
	@scripts/test_extras.sh

lint: ## ruff, mypy --strict, the import contracts, bandit and pip-audit
	@scripts/setup.sh --python
	@scripts/lint.sh

format: ## let ruff format the code and mend what it safely can
	@scripts/setup.sh --python
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

clean: ## remove caches and build products; keeps .venv and var/, which holds the store and its key
	@rm -rf build dist ./*.egg-info .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -path ./.venv -prune -o -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	@rm -rf .venv
