# `make` or `make help` lists the targets. Everything runs in .venv, which the set-up owns, but for lmms-eval.

VENV := .venv
LMMS := .venv-lmms
OLDER := .older
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST_ARGS ?=
PYTEST_WORKERS ?= -n auto --maxprocesses 4 --dist worksteal
DEMO_ARGS ?=
BENCH_ARGS ?= --out benchmarks/RESULTS.md

# The first interpreter that can make the environment: 3.11, else 3.12. Override with `make PYTHON=...`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p -c "$(SUITABLE)" 2>/dev/null && echo $$p && break; done)
SUITABLE = import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))

OMP_WAIT_POLICY ?= PASSIVE
TOKENIZERS_PARALLELISM ?= false
export OMP_WAIT_POLICY TOKENIZERS_PARALLELISM

# Names of a Chromium, as tests/pages/conftest.py looks for it.
BROWSERS := chromium chromium-browser google-chrome google-chrome-stable

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo setup test lint format types imports browser unit pytest long bench gpu reliability lmms older wheel upgrade clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## install what it needs, then train the embedded demo (no GPU, no model hub)
	$(BIN)/python -m vcr1.train experiment=demo $(DEMO_ARGS)

setup: $(VENV)/.dev ## install the package with its development tools into .venv

test: lint types imports browser unit ## set up, then check style, types, import rules and tests

lint: $(VENV)/.dev ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev ## mend style and formatting in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev ## check types
	$(BIN)/mypy

imports: $(VENV)/.dev ## check that imports go one way
	$(BIN)/lint-imports --no-logo

browser: ## see that there is a Chromium for the tests of the pages; as root on Debian, install one
	@for name in $(BROWSERS); do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium for the tests of the pages"; \
		apt-get -qq update >/dev/null && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes chromium >/dev/null && exit 0; \
	fi; \
	echo "No Chromium: the tests of the pages fail in CI and are skipped elsewhere; apt-get install chromium" >&2

unit: $(VENV)/.dev ## run the tests; PYTEST_ARGS='-k grpo -x' narrows them
	$(BIN)/python -m pytest $(PYTEST_WORKERS) $(PYTEST_ARGS)

pytest: unit

long: $(VENV)/.dev ## run the tests that take minutes each
	$(BIN)/python -m pytest -m long $(PYTEST_ARGS)

bench: $(VENV)/.bench ## measure shared against repeated prompts, TRL, evaluation; writes benchmarks/RESULTS.md
	$(BIN)/python benchmarks/prefix.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/rollout.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/trl_step.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/evaluation.py $(BENCH_ARGS)

gpu: $(VENV)/.bench ## measure steps of Qwen2.5-VL's shapes on one GPU; writes benchmarks/RESULTS.md
	$(BIN)/python benchmarks/gpu.py $(BENCH_ARGS)

reliability: $(VENV)/.dev ## kill runs, break videos, answers and configs at random; writes benchmarks/RELIABILITY.md
	$(BIN)/python benchmarks/reliability.py all $(BENCH_ARGS)

lmms: $(VENV)/.dev $(LMMS)/.ready ## run an exported checkpoint in lmms-eval, in an environment of its own
	LMMS_PYTHON=$(abspath $(LMMS)/bin/python) $(BIN)/python -m pytest tests/lmms_eval/smoke.py $(PYTEST_ARGS)

older: $(VENV)/.dev $(OLDER)/.ready ## load exports in transformers 4.57, which lies in a folder of its own
	OLDER_TRANSFORMERS=$(abspath $(OLDER)) $(BIN)/python -m pytest -n0 tests/policy/older_transformers.py $(PYTEST_ARGS)

wheel: $(VENV)/.dev ## build the sdist, and the wheel from it, into dist/
	$(BIN)/python -m build --no-isolation

clean: ## remove build outputs and caches; .venv and runs stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find vcr1 tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

# A stamp stands for a finished install. Each recipe removes the stamps first, so that an install that was
# cut short leaves none, and the next run starts from an empty environment instead of a half-filled one.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or 3.12 with venv found; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c "$(SUITABLE)" || { echo "$(PYTHON): needs Python 3.11 or 3.12 with venv and ensurepip" >&2; exit 1; }
	@test -f $@ || { echo "Creating $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear $(VENV); }
	@rm -f $(VENV)/.runtime $(VENV)/.dev $(VENV)/.bench
	@echo "Installing vcr1 into $(VENV) (about 5 GB the first time)"
	@$(PIP_INSTALL) -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@rm -f $(VENV)/.runtime $(VENV)/.dev $(VENV)/.bench
	@echo "Installing the development tools into $(VENV)"
	@$(PIP_INSTALL) -c constraints.txt -e ".[dev]"
	@touch $(VENV)/.runtime && touch $@

$(VENV)/.bench: $(VENV)/.runtime
	@rm -f $@
	@echo "Installing what the benchmarks need into $(VENV)"
	@$(PIP_INSTALL) -c constraints.txt -e ".[bench]"
	@touch $(VENV)/.runtime && touch $@

# vcr1 itself comes without what it needs: its tasks and readers are content with what lmms-eval brings.
$(LMMS)/.ready: docs/lmms_eval/constraints.txt | $(VENV)/.runtime
	@rm -f $@
	@echo "Installing lmms-eval into $(LMMS) (about 7 GB)"
	@$(BIN)/python -m venv --clear $(LMMS)
	@$(LMMS)/bin/python -m pip install --quiet --disable-pip-version-check -c docs/lmms_eval/constraints.txt "lmms-eval[video-legacy]"
	@$(LMMS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# Without torch and the like, which the tests have: three packages, 70 MB.
$(OLDER)/.ready: | $(VENV)/.runtime
	@rm -rf $(OLDER)
	@$(PIP_INSTALL) --no-deps --target $(OLDER) "transformers==4.57.6" "huggingface-hub==0.36.2" "tokenizers==0.22.2"
	@touch $@

# The oldest Python resolves, because its newest versions also install on the newer one. Only metadata is read.
upgrade: ## rewrite constraints.txt with the newest versions inside the bounds of pyproject.toml
	@command -v python3.11 >/dev/null || { echo "make upgrade needs python3.11, the oldest Python supported" >&2; exit 1; }
	@echo "Resolving the newest versions inside the bounds (about a minute)"
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp" constraints.txt.new' EXIT INT TERM; \
	python3.11 -m venv "$$tmp/venv"; \
	"$$tmp/venv/bin/python" -m pip install --quiet --disable-pip-version-check --dry-run --ignore-installed \
		--report "$$tmp/report.json" ".[dev,bench,slurm]"; \
	sed -n '/^#/p' constraints.txt > constraints.txt.new; \
	"$$tmp/venv/bin/python" -c "$$PINS" "$$tmp/report.json" >> constraints.txt.new; \
	diff constraints.txt constraints.txt.new || true; \
	mv constraints.txt.new constraints.txt
	@echo "constraints.txt is up to date; now: make test"

define PINS
import json, sys
found = [item["metadata"] for item in json.load(open(sys.argv[1]))["install"]]
pins = sorted(f'{one["name"].lower().replace("_", "-")}=={one["version"]}' for one in found if one["name"] != "vcr1")
odd = [pin for pin in pins if "+" in pin]
sys.exit(f"a local build would be pinned: {odd}") if odd else print("\n".join(pins))
endef
export PINS
