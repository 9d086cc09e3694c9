# `make` alone lists what there is.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
SCALE ?= 1
.PHONY: help run test matrix docs faults benchmark lint format clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: $(VENV)/installed  ## install if need be, and train the default: diffusion on handwritten digits
	$(BIN)/python train.py

test: $(VENV)/installed-test  ## install if need be, and run the tests
	$(BIN)/python -m pytest

matrix: $(VENV)/installed-test  ## the full products of parts, which make test draws a line through, and processes that start anew
	$(BIN)/python -m pytest -m matrix

docs: $(VENV)/installed-test  ## run every command of README and docs/ that needs no network, small; docs/commands.yaml lists the others
	$(BIN)/python scripts/run_docs.py

faults: $(VENV)/installed-test  ## break runs in every way that they promise to bear; half an hour, SCALE=0.1 is a tenth
	$(BIN)/python tests/faults/campaign.py --scale $(SCALE)

benchmark: $(VENV)/installed-peers  ## speed beside the peers that packages provide; ARGS="gpt --rounds 9", docs/benchmarks.md
	$(BIN)/python scripts/benchmark.py $(ARGS)

lint: $(VENV)/installed-test  ## ruff and mypy; lists long files, which may be
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@find src/genlab -name '*.py' -exec wc -l {} + | awk '$$1 > 300 && $$2 != "total" {print $$2 " has " $$1 " lines: two ideas?"}'

format: $(VENV)/installed-test  ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the virtual environment and caches; runs in outputs/ stay
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "error: genlab needs Python 3.11, 3.12 or 3.13. Name one: make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-peers: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[test,peers]'
	@touch $@ $(VENV)/installed-test $(VENV)/installed
