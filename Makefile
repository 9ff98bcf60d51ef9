# make run and make test need Python 3.11+, pip and make, and nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
JOB    ?= jobs/quick.yaml
LIVE   ?=
SECONDS ?= 300
ARGS   ?=
# Six workers for two cores, since many tests wait for other processes; two for unit tests, which compute.
# Groups share a Ray, a Chromium, a wheel; unit tests have none, and a thread of its own for each one's timeout costs them 1 s.
PARALLEL   := -n $${TEST_WORKERS:-6} --dist loadgroup
# Compiled tests are kept even where the environment says otherwise: compiling takes longer than collecting.
PYTEST     := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q $(PARALLEL)
CORE_VENV  ?= $(VENV)-core
CORE_TESTS := $(addprefix tests/integration/test_,core_alone.py cli_start.py cli_status_report_adopt.py \
  e2e_batch.py preflight.py validate_estimate.py)

.DEFAULT_GOAL := help
.PHONY: help run unit core-test test simulate mutants check format lint lint-actions types docs dist-check bench clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10
	@echo
	@echo 'make run LIVE=1 JOB=jobs/mona-lisa.yaml   spends money: the real API, with AIMLAPI_API_KEY'

# The core alone: what a user of the command needs.
$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'veobatch needs Python 3.11 or newer: make run PYTHON=python3.12'; exit 1; }
	@echo 'making the environment in $(VENV) ...'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

# And what its tests and checks need.
$(VENV)/.dev: $(VENV)/.core
	@echo 'adding what tests and checks need ...'
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: $(VENV)/.core ## animate a small manifest against the embedded sandbox, free (LIVE=1: for real)
ifeq ($(LIVE),)
	@$(BIN)/veobatch run $(JOB) --sandbox $(ARGS)
else
	@$(BIN)/veobatch run $(if $(filter file,$(origin JOB)),jobs/mona-lisa.yaml,$(JOB)) $(ARGS)
endif

unit: $(VENV)/.dev ## run the unit tests: no socket, no subprocess, no sleep
	@$(PYTEST) -n $${TEST_WORKERS:-2} --dist load --timeout-method signal tests/unit $(ARGS)

test: $(VENV)/.dev ## run the whole test suite
	@$(PYTEST) $(ARGS)

# The command's own suite in an environment that has no extra: what most users install.
$(CORE_VENV)/.made: pyproject.toml constraints.txt
	@test -x $(CORE_VENV)/bin/python || $(PYTHON) -m venv $(CORE_VENV)
	@PYTHONWARNINGS=ignore $(CORE_VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[core-test]'
	@touch $@

core-test: $(CORE_VENV)/.made ## run the command's tests without any extra installed
	@PYTHONDONTWRITEBYTECODE= $(CORE_VENV)/bin/python -m pytest -q $(PARALLEL) $(CORE_TESTS) $(ARGS)

simulate: $(VENV)/.dev ## new seeds of the simulated world for SECONDS (300), or the story of one: SEED=n
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seconds $(SECONDS)) $(ARGS)

mutants: $(VENV)/.dev ## break the rules that keep the promises, one at a time: the simulated world has to notice
	@$(BIN)/python -m tests.simulation.mutants $(ARGS)

check: $(VENV)/.dev ## what CI runs: format, lint, imports, strict types, tests, coverage
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory lint-actions docs
	@$(MAKE) --no-print-directory core-test
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory test ARGS='--cov --cov-report=term:skip-covered $(ARGS)'

format: $(VENV)/.dev ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: $(VENV)/.dev ## lint only, the contracts on imports included
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache --no-logo

lint-actions: $(VENV)/.dev ## lint action.yml, the workflows and the Dockerfile
	@$(BIN)/zizmor --offline --quiet action.yml .github docs/ci
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml docs/ci/veobatch*.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-actions action.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci docs/ci/gitlab-ci.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docs/howto/compose.yaml
	@$(BIN)/hadolint Dockerfile
	@if command -v actionlint >/dev/null; then actionlint .github/workflows/*.yml docs/ci/veobatch*.yml; \
	  elif [ -n "$$CI" ] && command -v go >/dev/null; then go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.7 .github/workflows/*.yml docs/ci/veobatch*.yml; \
	  else echo 'actionlint is not installed: left out'; fi

docs: $(VENV)/.dev ## build the documentation's site in site/, strictly
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Clean environments are made from the wheel; this takes a few minutes and a network.
$(VENV)/.dist: $(VENV)/.core
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dist]'
	@touch $@

dist-check: $(VENV)/.dist ## build wheel and sdist, and try them in clean environments
	@.ci/dist-check $(BIN)/python

types: $(VENV)/.dev ## strict types only
	@$(BIN)/mypy

bench: $(VENV)/.dev ## measure, print tables, write benchmarks/results.json
	@$(BIN)/python -m benchmarks $(ARGS)

bench-check: $(VENV)/.dev ## measure, and fail when a ratio is worse than docs/benchmarks.md beyond the noise
	@$(BIN)/python -m benchmarks --check $(ARGS)

clean: ## remove the environment, caches and sandbox output
	@rm -rf $(VENV) $(CORE_VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis htmlcov .coverage .coverage.*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
