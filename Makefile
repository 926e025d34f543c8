# One virtual environment, made from the locks; every target works from a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
# A Ctrl-C that comes before Python can handle it is kept until then, where env can do so.
KEEP_SIGINT = $(shell env --block-signal=INT true 2>/dev/null && echo env --block-signal=INT)
# Only a Python that was asked for replaces the one that .venv has.
MAKE_VENV = $(KEEP_SIGINT) $(PYTHON) -IS deploy/environment.py \
	$(if $(filter command environment,$(firstword $(origin PYTHON))),--this-python)

.PHONY: setup setup-run run unit check lint test crash faults first-minute live compose-test bench audio-table lock clean

setup: have-python
	@$(MAKE_VENV) all

# What a run needs, without linters and type checkers.
setup-run: have-python
	@$(MAKE_VENV) run

.PHONY: have-python
have-python:
	@command -v "$(PYTHON)" >/dev/null || \
		{ echo "there is no $(PYTHON): install Python 3.11 or newer, or name it: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }

run: setup-run
	@$(KEEP_SIGINT) $(BIN)/python -m services local $(ARGS)

# Processes among which pytest divides its tests.
WORKERS ?= 2
# The tests start hundreds of processes: without its cache, each would compile every module again.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
SHARED_OUT = --numprocesses=$(WORKERS) --dist=worksteal

# All that needs no server and no ffmpeg: seconds.
unit: setup
	$(PYTEST) $(SHARED_OUT) tests/unit $(ARGS)

test: check
	$(PYTEST) $(SHARED_OUT) $(ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The former name of check.
lint: check

# Kills the services at every named point, at pairs of points, and by SEEDS random schedules.
SEEDS ?= 500
crash: setup
	$(BIN)/python -m tests.crash --seeds $(SEEDS) $(ARGS)

# What each injected fault costs, as a table.
faults: setup
	@mkdir -p bench-results && rm -f bench-results/faults.jsonl
	FAULT_TABLE=bench-results/faults.jsonl $(PYTEST) $(SHARED_OUT) -q tests/faults $(ARGS)
	@FAULT_TABLE=bench-results/faults.jsonl $(BIN)/python -m tests.support.outcomes

# The README's two commands in fresh copies, as newcomers come to them; root does all of it.
first-minute: setup
	$(BIN)/python -m tests.first_minute $(ARGS)

# The whole product against a real Torrentino (TORRENTINO_BINARY) and real torrent clients, and against
# a real catalog server (PEZZOTTIFY_BINARY).
live: setup
	$(BIN)/python -m tests.live $(ARGS)

# docker-compose.yml for real; needs a Docker engine on this machine, and leaves nothing behind.
compose-test: setup
	$(BIN)/python -m tests.compose $(ARGS)

bench: setup
	$(BIN)/python -m bench $(ARGS)

# What is said of each file of the corpus, by release of ffmpeg; ARGS=FOLDER names a further one.
audio-table: setup
	$(BIN)/python -m tests.corpus $(ARGS)

# Needs uv; everybody else installs from the locks it writes: for all, for a run, for the image.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --all-extras pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header -c requirements.lock --extra local pyproject.toml -o requirements-local.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header -c requirements.lock pyproject.toml -o requirements-runtime.lock

clean:
	rm -rf .venv .venv.lock .venv-live data bench-results
