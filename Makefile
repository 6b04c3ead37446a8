# `make quickstart` runs the main job on recipes/digits; `make test` runs everything that CI runs. Both may be repeated.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PYTHONDONTWRITEBYTECODE =  # tests and agents start hundreds of processes: each module is compiled once

.PHONY: quickstart test lint types bench clean

quickstart: $(VENV)/installed
	$(BIN)/edgeopt compile recipes/digits
	@echo "open build/digits/report.html"

test: lint types
	$(BIN)/python -m pytest -n 3 --dist worksteal  # many tests wait for other processes

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 edgeopt/agent  # boards have older Pythons

bench: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,recipes]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/installed

clean:
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache
