# `make demo` and `make test` do all the set-up: a virtual environment here, the install, the job.
# They need Python 3.10 or later (3.11 is the tested one) and its venv module.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow reliability lint docs clean

help: ## what there is to make
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(READY) ## the virtual environment with sglc and its tools in it

$(READY): pyproject.toml
	@echo "setting up $(VENV), once: a minute or two, and some GB of disk"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(READY) ## compile and run a program on a small model (fetches it the first time)
	@$(BIN)/sglc demo

test: $(READY) ## the tests
	$(BIN)/python -m pytest -q -n auto --dist worksteal

test-slow: $(READY) ## all tests that need no GPU, with the full numbers of examples
	$(BIN)/python -m pytest -q -m 'not gpu' --hypothesis-profile slow

reliability: $(READY) ## the reliability matrix of the server, figure beside target
	$(BIN)/python -m tests.serve.reliability

lint: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY) ## the documentation, in docs/_build/html
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

clean: ## remove the virtual environment and what tools left behind
	rm -rf $(VENV) build dist docs/_build .pytest_cache .ruff_cache .mypy_cache .hypothesis
