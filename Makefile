# Every target sets up what it needs in a local virtual environment; nothing has to be done before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test check format bench-throughput bench-pool bench-gpu clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "dfkd needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --editable '.[demo,export,tensorboard,dev]'
	@touch $@

demo: $(READY) ## Train a small teacher on real digits, compress it without them, evaluate the student
	$(BIN)/python -m benchmarks.demo --out out/demo --seed $(or $(SEED),0)

# Two workers of one thread each: most tests wait for a process to start or for one core.
test: $(READY) ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: $(READY) ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(READY) ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-throughput: $(READY) ## Compare student and synthesis step with bare PyTorch loops, in one run
	$(BIN)/python -m benchmarks.throughput

bench-pool: $(READY) ## Compare reading a pool with bare decoding: make bench-pool IMAGES=DIR
	$(BIN)/python -m benchmarks.pool $(IMAGES)

bench-gpu: $(READY) ## Everything that is measured on the first GPU, in 10 minutes, into one file
	$(BIN)/python -m benchmarks.gpu --data $(or $(DATA),../shared/data) --out out/gpu.json

clean: ## Remove the environment and what runs have written
	rm -rf $(VENV) out build dist *.egg-info
