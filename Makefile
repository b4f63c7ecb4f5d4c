# Every target sets up what it needs in .venv, from a fresh clone on, and installs again only after a change to the
# build. The install is editable: a change to a Python file counts at once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BUILD := pyproject.toml setup.py $(shell find csrc -name '*.cpp' -o -name '*.hpp')

.DEFAULT_GOAL := help
.PHONY: study test bench docs hashes wheel wheels lint format clean help

study: $(VENV)/.study ## run the study; figures and report.html go to pynn-study/ (ARGS="--quick" ...)
	$(BIN)/pynn study $(ARGS)

test: $(VENV)/.test ## run the tests (ARGS="-k affine" ...)
	$(BIN)/pytest $(ARGS)

bench: $(VENV)/.test ## benchmark pynn against NumPy, and against the peers that are installed
	$(BIN)/pytest benchmarks $(ARGS)

docs: $(VENV)/.docs ## build the documentation, into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html

hashes: $(VENV)/.test ## publish the hashes of results, after functions were added
	$(BIN)/pynn selftest --hashes > pynn/hashes.json.new
	mv pynn/hashes.json.new pynn/hashes.json

wheel: $(VENV)/.dev ## build the sdist, and the wheel from it, into dist/
	$(BIN)/python -m build

wheels: $(VENV)/.study ## build manylinux wheels for x86-64 and AArch64, check them, and run them on emulated processors
	$(BIN)/python tools/wheels.py --out dist
	$(BIN)/python tools/emulate.py dist/*manylinux*.whl

lint: $(VENV)/.dev ## ruff, clang-format and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	find csrc tests/capi pynn/include -name '*.[ch]pp' -o -name '*.h' | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/mypy

format: $(VENV)/.dev ## put Python and C++ into the form that lint asks for
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	find csrc tests/capi pynn/include -name '*.[ch]pp' -o -name '*.h' | xargs $(BIN)/clang-format -i

clean: ## remove all that these targets made, but for pynn-study/
	rm -rf $(VENV) build dist *.egg-info pynn/_core*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -rf docs/_build docs/reference
	find . -name __pycache__ -prune -exec rm -rf {} +

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST)

# One stamp per extra.
$(VENV)/.study $(VENV)/.test $(VENV)/.docs $(VENV)/.dev: $(VENV)/.%: $(BUILD) | $(VENV)/bin/pip
	$(BIN)/pip install --editable '.[$*]'
	@touch $@

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)
