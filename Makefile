# `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000

.PHONY: help run test lint format faults bench contact-sheets docs clean

help:  ## This list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/run.stamp: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,celery,heif,otel,postgres,redis]'
	touch $@

run: $(VENV)/run.stamp  ## Set up, migrate, seed a demo album, serve it (PORT, default 8000).
	@BIN=$(CURDIR)/$(BIN) PORT=$(PORT) exec demo/run.sh

lint: $(VENV)/dev.stamp  ## ruff, mypy --strict, import-linter.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp  ## Let ruff put the code in order.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint  ## Lint, every test, and those that have rows again on PostgreSQL.
	$(BIN)/pytest -n 2 --dist loadfile
	$(BIN)/pytest -n 2 --dist loadfile --database postgresql

faults: $(VENV)/dev.stamp  ## Faults, fuzzing and races with their full figures (hours, not minutes).
	FAULTS=full $(BIN)/pytest tests

bench: $(VENV)/dev.stamp  ## Measure ours beside its peers, in one run.
	$(BIN)/python -m bench

contact-sheets: $(VENV)/dev.stamp  ## Renditions beside libvips', to be looked at: build/contact-sheets/.
	$(BIN)/python -m tests.imaging.sheets

docs: $(VENV)/dev.stamp  ## Make the parts of the documentation that come from the code.
	$(BIN)/python docs/generate.py

clean:  ## Remove what was built; keeps instance/.
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
