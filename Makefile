# The commands of the project. Every one of them sets up what it needs first; that is instant when done before.
# Another Python:  make setup PYTHON=python3.13

PYTHON ?= python3
ifeq ($(OS),Windows_NT)
  BIN := .venv/Scripts
else
  BIN := .venv/bin
endif
SETUP := $(PYTHON) tools/bootstrap.py

# One thread per process: the nets are small, and tests run side by side.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export NUMBA_NUM_THREADS := 1

.PHONY: help setup demo test lint bench audit clean

help:
	@echo "make setup   create .venv and install what is needed to train and backtest"
	@echo "make demo    make sample markets, train and backtest them, write a report"
	@echo "make test    check style, types and imports, then run all tests"
	@echo "make lint    check style, types and imports only"
	@echo "make bench   measure speed beside other libraries"
	@echo "make audit   ask for known vulnerabilities of every pinned package (needs a network)"
	@echo "make clean   remove caches (never data, models or reports)"

setup:
	@$(SETUP) core

demo:
	@$(SETUP) core
	$(BIN)/python tools/demo.py

test: lint
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

lint:
	@$(SETUP) core tracking test dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check
	$(BIN)/lint-imports

bench:
	@$(SETUP) core bench
	$(BIN)/python -m benchmarks

# Every pin is asked about, torch too. It fails where a vulnerability is known, and where nobody can be asked.
audit:
	@$(SETUP) core audit
	$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

clean:
	rm -rf .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find rl tests tools benchmarks config -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
