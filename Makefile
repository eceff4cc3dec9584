.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow test-slurm check lint types bench torture golden lock clean

PYTHON ?= python3
RUNS ?= $(or $(O2O_RUNS),runs)
BIN := .venv/bin
STAMP := .venv/.installed
# uv, where it is there, installs the same lock several times faster.
INSTALL := $(if $(shell command -v uv),uv pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet)

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1	/' | expand -t 12

venv: $(STAMP)  ## make .venv from the lock (PYTHON=python3.12 chooses the interpreter)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  f"Python {v[0]}.{v[1]} is not supported: make venv PYTHON=python3.11 (or 3.12, 3.13)")'
	$(PYTHON) -m venv --clear .venv
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --no-deps -e .
	@touch $@

demo: venv  ## pretrain, finetune, print the table and draw the curves
	$(BIN)/python launch.py experiment=demo
	$(BIN)/python -m analysis $(RUNS)

test: venv  ## the fast tests
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

test-slow: venv  ## the slow tests
	$(BIN)/python -m pytest -q -m slow --ignore=tests/slurm

test-slurm: venv  ## a real SLURM on this machine, installed where it is missing (Debian, root), and what it does to jobs
	O2O_INSTALL_SLURM=1 $(BIN)/python -m pytest -q -n 3 --dist loadgroup tests/slurm

check: lint types test  ## everything a change must pass

lint: venv  ## formatting and lint
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: venv  ## static types
	$(BIN)/pyright

bench: venv  ## measure update rate, online rate, loading and planning
	$(BIN)/python -m benchmarks

torture: venv  ## kill runs at every dangerous point, feed bad input, count what was lost (TORTURE=--short: CI's form)
	PYTHONPATH=.:tests $(BIN)/python -m torture $(TORTURE)

golden: venv  ## rewrite the golden numbers; the diff belongs into the commit that changes them
	$(BIN)/python -m pytest -q tests/test_golden.py --write-golden

lock:  ## resolve requirements.lock again, for all supported Pythons (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --upgrade --quiet \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header --output-file requirements.lock

clean:  ## remove .venv and caches; data and runs stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
