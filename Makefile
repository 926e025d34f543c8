# One virtual environment, made from the lock; every target works from a fresh clone.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup run test lint crash faults compose-test bench lock clean

setup: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: setup
	@$(BIN)/pezzottify-downloads local $(ARGS)

test: lint
	$(BIN)/python -m pytest $(ARGS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Kills the services at every named point, at pairs of points, and by SEEDS random schedules.
SEEDS ?= 500
crash: setup
	$(BIN)/python -m tests.crash --seeds $(SEEDS) $(ARGS)

# What each injected fault costs, as a table.
faults: setup
	@mkdir -p bench-results && rm -f bench-results/faults.jsonl
	FAULT_TABLE=bench-results/faults.jsonl $(BIN)/python -m pytest -q tests/faults $(ARGS)
	@FAULT_TABLE=bench-results/faults.jsonl $(BIN)/python -m tests.outcomes

# docker-compose.yml for real; needs a Docker engine on this machine, and leaves nothing behind.
compose-test: setup
	$(BIN)/python -m tests.compose $(ARGS)

bench: setup
	$(BIN)/python -m bench $(ARGS)

# Needs uv; everybody else installs from the lock it writes.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --all-extras pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header -c requirements.lock pyproject.toml -o requirements-runtime.lock

clean:
	rm -rf .venv data bench-results
