.PHONY: demo test test-fast check types format docs clean
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

demo: $(VENV)/ready  ## the embedded recipe: a whole chain on a small world, on the GPU when there is one
	$(BIN)/python scripts/train.py recipes/tiny.yaml

test: $(VENV)/ready  ## everything, real launches included
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-fast: $(VENV)/ready
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow"

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory types
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/trainers/test_seams.py tests/test_docs.py

types: $(VENV)/ready  ## mypy, which finds this folder under the name of the package
	mkdir -p $(VENV)/types && ln -sfn ../.. $(VENV)/types/trimtab
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/ready  ## the pages that are made from the dataclasses
	$(BIN)/python scripts/docs.py

clean:
	rm -rf $(VENV) runs

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
