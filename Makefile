# make repro    every table and figure         make repro ONLY=table4f    one, and what it needs
# make search ONLY=sigma    a search of experiments/search_*.yaml
# make test     all checks                     make plan    dvc.yaml from params.yaml
# make ui       the runs in MLflow's pages

PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
INSTALLED := .venv/installed
export PATH := $(BIN):$(PATH)

.PHONY: repro search test plan ui lock
.DELETE_ON_ERROR:

repro: $(INSTALLED)
	@python -m pipeline.repro $(ONLY)
	@echo "All on one page: results/report.html. Runs: make ui"

search: $(INSTALLED)
	@test -n "$(ONLY)" || { echo "error: name a search: make search ONLY=sigma"; exit 1; }
	@dvc repro searches/dvc.yaml:search@$(ONLY)

plan: $(INSTALLED)
	@python -m pipeline.plan

test: $(INSTALLED)
	ruff check .
	ruff format --check .
	mypy
# A thread each: two processes compute on both cores without getting in each other's way. A file
# is run by one of them, in conftest.py's order: what a file's tests share is made once.
	OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# In a new folder the server and a training would both make the file, and break it: made first.
# Without the processes for MLflow's jobs on LLM traces, of which there are eight.
ui: $(INSTALLED)
	@env -u MLFLOW_TRACKING_URI python -c 'from pipeline.tracking import connect; connect()'
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow server --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --workers 1

# Pinned with hashes; names no package index.
lock: $(INSTALLED)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --extra dev pyproject.toml -o requirements.lock

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo "Installing into .venv: about 3 minutes and 7 GB, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
