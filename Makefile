.DEFAULT_GOAL := help
.PHONY: help venv demo test test-core test-slow test-slurm check lint types bench bench-peers bench-wheels bench-gpu torture golden lock \
  clean

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
	@echo "Installing requirements.lock into .venv with $(firstword $(INSTALL)): JAX, MuJoCo and what they need,"
	@echo "1.2 GB. Seconds where they are cached, else as long as the network takes."
	@echo "Nothing outside .venv is changed."
	$(PYTHON) -m venv --clear .venv
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --no-deps -e .
	@touch $@
	@echo "Installed. Next: make demo (some five minutes on two cores),"
	@echo "or . .venv/bin/activate and python launch.py --help"

demo: venv  ## pretrain, finetune, print the table and draw the curves, of the demo's runs alone
	$(BIN)/python launch.py experiment=demo
	$(BIN)/python -m analysis $(RUNS) --where $(DEMO)

# What tells the demo's runs from others in RUNS: values of conf/experiment/demo.yaml.
DEMO := dataset.name=regen-hopper-medium dataset.rows=200000 pretrain.updates=30000 finetune.env_steps=4000

test: venv  ## the fast tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow"

# What the numbers rest on: losses, algorithms, replay, training, identity, collapse.
CORE := tests/algorithms tests/replay tests/training tests/runs/test_identity.py tests/test_collapse.py
test-core: venv  ## the fast tests of what the numbers rest on
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" $(CORE)

test-slow: venv  ## the slow tests: all malformed words, long fuzzing and torture, statistics, installation
	$(BIN)/python -m pytest -q -m slow --ignore=tests/slurm

test-slurm: venv  ## a real SLURM on this machine, installed where it is missing (Debian, root), and what it does to jobs
	$(BIN)/python tests/slurm/cluster.py --install
	$(BIN)/python -m pytest -q -rs -n 3 tests/slurm

check: lint types test  ## everything a change must pass

lint: venv  ## formatting and lint
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: venv  ## static types
	$(BIN)/pyright

bench: venv  ## measure rates, evaluation, start and loading; on a GPU too where there is one
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.methods
	@! nvidia-smi -L >/dev/null 2>&1 || $(BIN)/python -m benchmarks --device gpu

bench-peers: .venv-peers/.installed  ## measure against d3rlpy and sbx, in an environment of their own
	.venv-peers/bin/python -m benchmarks.peers

.venv-peers/.installed: pyproject.toml
	$(PYTHON) -m venv --clear .venv-peers
	.venv-peers/bin/python -m pip install --quiet torch==2.13.0 sbx-rl==0.28.0 d3rlpy==2.8.1 -e .
	@touch $@

# For a machine with a GPU and JAX for it, but no package registry: its Python, and what it lacks beside JAX.
WHEELS ?= wheels
GPU_PYTHON ?= 3.12
bench-wheels:  ## bring what bench-gpu needs into WHEELS, for a machine without a registry (docs/speed.md)
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version $(GPU_PYTHON) --implementation cp \
	  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
	  --dest $(WHEELS) mujoco==3.4.0 gymnasium farama-notifications cloudpickle glfw 'hydra-core<1.4' 'omegaconf<2.4' rich tqdm
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir $(WHEELS) antlr4-python3-runtime==4.9.3

bench-gpu: export JAX_COMPILATION_CACHE_DIR ?= .venv-gpu/compiled
bench-gpu: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0
bench-gpu:  ## measure on a GPU with PYTHON's JAX, installing only what lies in WHEELS
	@if [ -d $(WHEELS) ]; then \
	  $(PYTHON) -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target .venv-gpu $(WHEELS)/*.whl; fi
	PYTHONPATH=.venv-gpu $(PYTHON) -m benchmarks --device gpu --task hopper --members 1,10,40 --rounds 3 --updates 2000
	PYTHONPATH=.venv-gpu $(PYTHON) -m benchmarks.paper --device gpu --rounds 1 --updates 1000

torture: venv  ## kill runs at every dangerous point, feed bad input, count what was lost (TORTURE=--short: CI's form)
	PYTHONPATH=.:tests $(BIN)/python -m torture $(TORTURE)

golden: venv  ## rewrite the golden numbers; the diff belongs into the commit that changes them
	$(BIN)/python -m pytest -q tests/algorithms/test_golden.py --write-golden

lock:  ## resolve requirements.lock again, for all supported Pythons (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --upgrade --quiet \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header --output-file requirements.lock

clean:  ## remove .venv and caches; data and runs stay
	rm -rf .venv .venv-peers .venv-gpu .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
