# Every target sets up what it needs: .venv, with the versions of constraints.txt. `make help` lists them.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
INSTALLED := .venv/installed
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env tests notebooks
DEMO_OUT ?= executed/demo

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all lab lint clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(INSTALLED) ## a small real distillation, end to end; prints a table and the path of an HTML report
	$(BIN)/workbench demo --out $(DEMO_OUT)

test: $(INSTALLED) ## the tests and the notebooks, but not the slow tests; Chromium where there is one
	$(PYTEST) -m "not slow"

test-all: $(INSTALLED) ## these, and the slow ones: what continuous integration runs
	$(PYTEST)

lab: $(INSTALLED) ## JupyterLab on the notebooks, in this environment
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter lab --notebook-dir=notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/mypy

clean: ## remove the environment and everything that running made, but not the cache folder (see `workbench doctor`)
	rm -rf .venv runs executed notebooks/runs build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A new pip first: old ones search long and build from source what newer ones find ready-made.
$(INSTALLED): pyproject.toml constraints.txt
	$(if $(PYTHON),,$(error Python 3.11 or newer is needed; install it or name it: make PYTHON=/path/to/python3.11))
	@test -x $(BIN)/python || { echo "making .venv with $$($(PYTHON) --version)"; $(PYTHON) -m venv .venv; }
	@echo "installing into .venv: some 6 GB with PyTorch for CUDA, several minutes the first time"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -c constraints.txt -e '.[lab,test]'
	@touch $@
