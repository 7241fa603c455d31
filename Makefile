# Everything a user or a CI needs. `make demo` and `make test` start from a bare clone.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check

.PHONY: help demo test lint format docs bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    install into $(VENV) and run the shipped checkpoint end to end into build/demo"
	@echo "make test    install what the tests need, lint, check types and layers, run the tests"
	@echo "make lint    only ruff, import-linter and pyright"
	@echo "make format  rewrite the sources with ruff"
	@echo "make docs    write the generated pages, docs/errors.md and docs/schedules.md"
	@echo "make bench   run the benchmarks"
	@echo "make clean   remove build products and $(VENV)"

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# The package, and the open ap_int headers that C simulation of the HLS code compiles against.
$(VENV)/.installed: $(BIN)/pip pyproject.toml constraints.txt
	@echo "installing flexllm-allo into $(VENV)"
	@$(PIP) install -c constraints.txt -e .
	@$(PIP) install -c constraints.txt --no-deps hls4ml
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/flexllm demo --out build/demo

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check --output-format concise
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports
	@$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix --exit-zero
	@$(BIN)/ruff format

# `pytest`, not `python -m pytest`: the latter puts the folder `kernels` on the path of transformers.
# Files in the order of tests/conftest.py, the longest first; xdist would begin with those of most tests.
test: lint
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# The pages that are generated: errors by running faulty programs, schedules from the docstrings, devices from the data.
docs: $(VENV)/.installed-dev
	@$(BIN)/python tests/error_page.py
	@$(BIN)/python tests/schedule_page.py
	@$(BIN)/python tests/device_page.py

bench: $(VENV)/.installed-dev
	@set -e; for script in $(wildcard benchmarks/*.py); do echo "== $$script"; $(BIN)/python -P $$script; done

clean:
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
