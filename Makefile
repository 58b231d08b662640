# Everything runs in .venv, which is made from a bare python3 the first time it is needed.
PYTHON ?= python3
BIN := .venv/bin
# One thread a process: the work is split by process where it is split at all, and results do not depend on cores.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

# A file of tests stays on one worker, which then makes its worlds once (with pytest 9.2 xdist's groups do nothing); in
# the order of the tree, or the longest files would come last.
ON_TWO := -n 2 --dist loadfile --no-loadscope-reorder
# Tests that run on a file as well as on a database; a few of each of the others run on both in any case.
ON_POSTGRES := hourly.py hourly_guards.py hourly_refusals.py desk.py paper.py accounting.py replay.py fault_injection.py broker_contract.py portfolio_report.py

.PHONY: help demo ui test test-ci test-all bench lint format constraints clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.venv/installed: pyproject.toml constraints.txt
	@echo "Installing into .venv (about 1.3 GB, once) ..."
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@# Compiled now, or each process that may not write beside its modules would compile them again: 5 s of an hour's 12.
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[candles,fast,live,postgres,test,lint]' || \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[candles,fast,live,postgres,test,lint]'
	@touch $@

demo: .venv/installed ## 60 simulated days of 50 tokens, from raw hours to paper orders, in a few minutes
	@$(BIN)/python -m breakout_assets demo

ui: .venv/installed ## the Dagster UI on http://127.0.0.1:3000, with schedules and sensors
	@# Two processes that make the instance's files at once collide; one command before them makes the files.
	@test -d .dagster || $(BIN)/dagster definitions validate > /dev/null 2>&1
	@$(BIN)/dagster dev --host 127.0.0.1 --port 3000

test: .venv/installed ## the fast tests, about nine minutes on two cores
	@$(BIN)/python -m pytest $(ON_TWO) -m "not slow"

test-ci: .venv/installed ## what CI runs: all but the longest
	@$(BIN)/python -m pytest $(ON_TWO) -m "not long"

test-all: .venv/installed ## all tests, also those with a daemon, a browser and the real panel, and orders on PostgreSQL
	@$(BIN)/python -m pytest $(ON_TWO)
	@TEST_LEDGERS=postgres $(BIN)/python -m pytest $(ON_TWO) -m "not long" $(addprefix breakout_assets_tests/trading/test_, $(ON_POSTGRES))

bench: .venv/installed .venv-pandas-2/installed ## every stage beside the published way, at 1,250 coins and a year of history; an hour, 8 GB of disk
	@$(BIN)/python -m bench --older-pandas .venv-pandas-2/bin/python $(BENCH)

# pandas 3 reads a CSV file in less than half of what pandas 2 takes, which the promised ratio was measured with.
.venv-pandas-2/installed:
	@$(PYTHON) -m venv --clear .venv-pandas-2
	@.venv-pandas-2/bin/python -m pip install --quiet --disable-pip-version-check 'pandas==2.3.3' pyarrow
	@touch $@

lint: .venv/installed ## ruff, mypy --strict, and whether Dagster can load the definitions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/dagster definitions validate 2>&1 | tail -n 1

format: .venv/installed ## let ruff fix and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

constraints: .venv/installed ## resolve constraints.txt anew from pyproject.toml
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --no-annotate --no-header \
		--no-emit-index-url pyproject.toml --output-file constraints.txt

clean: ## remove .venv, the embedded store and the Dagster instance
	rm -rf .venv .venv-pandas-2 data .dagster artefacts bench-work bench-results
