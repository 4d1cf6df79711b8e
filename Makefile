# make quickstart   installs into .venv and runs the whole pipeline
# make test         installs into .venv and runs ruff, mypy and pytest
# make reference    writes docs/reference/ from the code, after a setting, option or command was added
# make docs         builds the documentation into build/docs
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install quickstart test lint reference docs clean

install: .venv/installed

.venv/installed: setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "minilima needs Python 3.11 to 3.13; choose one with: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m minilima fetch
	touch $@

quickstart: install
	$(BIN)/python -m minilima +experiment=quickstart

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -rs

lint: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: install
	$(BIN)/python -m minilima.cli.reference

docs: reference
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv build *.egg-info
