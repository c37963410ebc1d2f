PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

NO_REPOSITORY := DVC needs a repository of Git: clone ProtoMask instead of downloading it,\
 or make one of this folder (`git init`, `git add -A`, `git commit`).

.PHONY: demo test types all-tests quick docs repository

demo: repository $(VENV)/installed  ## run the whole experiment on the built-in data set
	dvc repro
	@cat artifacts/evaluate/metrics.json
	@echo "The report: $(CURDIR)/artifacts/report/index.html"

test: $(VENV)/installed  ## lint, types and all tests
	ruff check .
	ruff format --check .
	lint-imports
	$(MAKE) --jobs 2 types all-tests

types:
	mypy

all-tests:
	pytest -n 2 --dist loadfile --no-loadscope-reorder

quick: $(VENV)/installed  ## the tests a person runs all day
	pytest -n 2 -m "not slow and not browser"

docs: $(VENV)/installed  ## the documentation as a site; open site/index.html
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	@echo "The site: $(CURDIR)/site/index.html"

repository:
	@git rev-parse --git-dir > /dev/null || { echo '$(NO_REPOSITORY)' >&2; exit 1; }

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable ".[dev,docs]"
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt \
		--no-build-isolation --editable ".[sam2]"
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@
