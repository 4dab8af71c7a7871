# Every target sets up what it needs in .venv, so that a fresh checkout and Python 3.11 are enough.
# PyTorch's CPU build, where the default is not wanted: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin

.PHONY: help demo test lint format docs clean

help:
	@echo "make demo     train, evaluate and use a small video transformer on data made here; results in runs/demo"
	@echo "make test     the tests that need no GPU and no long time (JOBS=$(JOBS) at once)"
	@echo "make lint     style and types"
	@echo "make format   rewrite the sources in the project's style"
	@echo "make docs     the documentation, as a site in docs/_build/html"
	@echo "make clean    remove .venv, caches and everything built; runs stay"

demo: .venv/with-demo,torchcodec
	$(BIN)/tubelet demo

test: .venv/with-demo,torchcodec,test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS)

lint: .venv/with-demo,lint,test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/with-demo,lint,test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/with-demo,docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going -d docs/_build/doctrees docs docs/_build/html

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis dist docs/_build docs/gallery docs/sg_execution_times.rst
	find src tests docs examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv .venv

# One stamp per set of extras; the newest packages that constraints.txt allows are installed again when it changes.
.venv/with-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$*]"
	@touch $@
