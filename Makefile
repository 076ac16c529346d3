# Everything runs inside .venv, which the first command makes. Only Python 3.11 or newer is needed beforehand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTHON_FILES := src tests benchmarks examples docs/hooks

.PHONY: audit test check format bench bench-peers docs docs-serve clean
.DEFAULT_GOAL := audit

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Embattle needs Python 3.11 or newer; write: make PYTHON=/path/to/python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# The main job on a data set that needs no download; about three minutes. Other runs: make audit ARGS="--data ..."
audit: $(VENV)/.installed
	@$(BIN)/embattle audit $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format $(PYTHON_FILES)
	$(BIN)/ruff check --fix $(PYTHON_FILES)

# Most take less than two minutes on two idle cores, harden ten; each writes results/bench-*.json; one alone: BENCHMARKS=ranks
BENCHMARKS ?= loop query_rank candidate_rank ranks cli harden freed_memory
bench: $(VENV)/.installed-test
	for name in $(BENCHMARKS); do \
	  $(BIN)/python benchmarks/$$name.py --out results/bench-$$(echo $$name | tr _ -).json $(ARGS) || exit 1; \
	done

# Other libraries live in an environment of their own and never beside ours.
.venv-peers/.installed: benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt -e .
	@touch $@

bench-peers: .venv-peers/.installed
	.venv-peers/bin/python benchmarks/peers.py --out results/bench-peers.json $(ARGS)

# Builds the site into site/ (a warning is an error), then executes every code block and every docstring example.
docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python -m pytest tests/docs $(ARGS)

# The site at http://127.0.0.1:8000, built again when a page or a docstring changes.
docs-serve: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

clean:
	rm -rf $(VENV) build dist site *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
