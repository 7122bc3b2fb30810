# make demo   train, judge, predict, export and explain a small detector on built-in pictures
# make test   all tests
# make check  format, lint, types, imports, spelling
# Each makes .venv first, when it is not there. make PYTHON=python3.12 chooses another Python.

PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 2
# Tests run in so many processes, a file each time; two of torch's threads in each would slow each other down.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 4 || echo $$n)

.PHONY: demo test check clean prepare
.DEFAULT_GOAL := demo

prepare:
	@command -v git >/dev/null || { echo "torso: needs git: sudo apt install git" >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "torso: needs Python 3.11 or newer: sudo apt install python3 python3-venv python3-pip" >&2; exit 1; }
	@$(PYTHON) .ci/prepare.py

demo: prepare
	@.ci/demo $(OVERRIDES)

test: prepare
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check: prepare
	@$(BIN)/ruff format --check --quiet . || { echo "torso: run '$(BIN)/ruff format .'" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/codespell

# Leaves .venv and every run but the demo's.
clean:
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis demo runs/detect/demo-*
	@find torso tests examples benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
