.PHONY: demo test test-fast check mutate types format docs docs-numbers screenshot clean
# the first of these that is new enough
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN = $(VENV)/bin
PARALLEL = -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder  # in the order of tests/conftest.py

demo: $(VENV)/ready  ## the embedded recipe: a whole chain on a small world, on the GPU when there is one
	$(BIN)/python scripts/run.py recipes/tiny.yaml --jobs 2

test: $(VENV)/ready  ## everything, real launches included
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: $(VENV)/ready
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory types
	$(BIN)/python -m pytest -q $(PARALLEL) tests/test_architecture.py tests/trainers/test_seams.py tests/trainers/test_contract.py tests/test_docs.py

mutate: $(VENV)/ready  ## how many wrong changes of the mathematics the fast tests notice; goes on where it was
	$(BIN)/python benchmarks/mutation

types: $(VENV)/ready  ## mypy, which finds this folder under the name of the package
	mkdir -p $(VENV)/types && ln -sfn ../.. $(VENV)/types/trimtab
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs-numbers: $(VENV)/ready  ## the tables that are made from what benchmarks have stored
	$(BIN)/python benchmarks/stored_numbers.py

docs: $(VENV)/ready  ## the pages that are made from the dataclasses
	$(BIN)/python scripts/docs.py
	$(BIN)/python scripts/schema.py --output recipes/schema.json

CHROMIUM ?= chromium
screenshot: $(VENV)/ready  ## the README's picture, of the demo's page
	$(CHROMIUM) --headless --hide-scrollbars --window-size=1200,1130 --screenshot=docs/report.png runs/tiny/report/output/report.html
	$(BIN)/python -c "from PIL import Image; Image.open('docs/report.png').convert('RGB').quantize(32).save('docs/report.png', optimize=True)"

clean:
	rm -rf $(VENV) runs

$(VENV)/ready: pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "error: Trimtab needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python"; exit 1; }
	@echo "setting up $(VENV): about two minutes, most of it PyTorch"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
