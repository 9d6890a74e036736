# Everything runs in .venv, which is created on first use. torch is installed first and separately, because pip would
# otherwise choose a build of several GB.
TORCH ?= torch==2.13.0
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-all test-lowest test-latest check fix docs bench results dist clean

quickstart: $(BIN)/.ready
	$(BIN)/stfit train recipes/quickstart.yaml
	$(BIN)/stfit similar runs/quickstart recipes/data/questions.txt --query "has my refund been processed yet" \
		--query "log me out of the library computer remotely" --query "please send me a link to reset my password"

test: $(BIN)/.dev
	$(BIN)/pytest -m "not slow" -n 2 --dist worksteal

test-all: $(BIN)/.dev
	$(BIN)/pytest -n 2 --dist worksteal

# The lowest, and the newest, direct dependencies that pyproject.toml allows. torch is the same in both.
test-lowest: RESOLUTION = lowest-direct
test-latest: RESOLUTION = highest
test-lowest test-latest:
	rm -rf .$@
	$(PYTHON) -m venv .$@
	.$@/bin/pip install --quiet uv
	.$@/bin/pip install --quiet --no-deps $(TORCH)
	.$@/bin/uv pip install --quiet --python .$@/bin/python --resolution $(RESOLUTION) -e ".[test,lora]"
	.$@/bin/pytest -W default -m "not slow" -n 2 --dist worksteal

check: $(BIN)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fix: $(BIN)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(BIN)/.ready
	$(BIN)/stfit reference -o recipes/README.md
	$(BIN)/stfit schema -o recipes/recipe.schema.json
	$(BIN)/python tests/benchmarks/picture.py .github/quickstart.svg

bench: $(BIN)/.dev
	$(BIN)/python tests/benchmarks/bench.py --json runs/bench.json
	$(BIN)/python tests/benchmarks/quality.py

# BASES: NAME=FOLDER[:ROWS] of each. Takes hours, and goes on where it was stopped.
results: $(BIN)/.dev
	$(BIN)/python tests/benchmarks/results.py $(BASES) --runs runs/results --page recipes/guides/results.md

dist: $(BIN)/.dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	for file in dist/*; do $(BIN)/python tests/installed/try_package.py $$file --torch "$(TORCH)" || exit 1; done

clean:
	rm -rf .venv .test-lowest .test-latest dist runs

$(BIN)/.ready: pyproject.toml
	@echo "Installing torch and stfit into .venv (once, takes a few minutes)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -e .
	touch $@

$(BIN)/.dev: $(BIN)/.ready
	@echo "Installing test dependencies (once, takes a few minutes)"
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $@
