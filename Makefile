# `make demo` and `make test` are the only set-up commands: both make .venv when it is missing.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint unit test-slow test-faults clean
.DELETE_ON_ERROR:

$(READY): requirements.lock pyproject.toml
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mmexp needs Python >= 3.11; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --quiet -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps -e .
	@touch $@

demo: $(READY)
	$(BIN)/mmexp sweep quickstart

test: lint unit

lint: $(READY)
	$(BIN)/ruff check mmexp hydra_plugins tests benchmarks
	$(BIN)/ruff format --check mmexp hydra_plugins tests benchmarks
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Slow proofs: minutes each. Run before a release, not by CI.
test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

# Many random kills of controller, workers and fork server.
test-faults: $(READY)
	$(BIN)/python -m pytest -m faults

clean:
	rm -rf $(VENV) mmexp_out
