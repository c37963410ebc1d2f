PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test quick

demo: $(VENV)/installed  ## run the whole experiment on the built-in data set
	dvc repro
	@cat artifacts/evaluate/metrics.json
	@echo "The report: $(CURDIR)/artifacts/report/index.html"

test: $(VENV)/installed  ## lint, types and all tests
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	pytest -n 2 --dist loadfile --no-loadscope-reorder

quick: $(VENV)/installed  ## the tests a person runs all day
	pytest -n 2 -m "not slow and not browser"

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--no-build-isolation --editable ".[sam2]"
	touch $@
