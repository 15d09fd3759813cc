# `make` prints what there is to make.

PYTHON ?= python3
PORT ?= 5000
OUTER := $(PATH)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
BOOTSTRAP := PATH="$(OUTER)" PYTHON="$(PYTHON)" sh bootstrap.sh

# Two processes with a thread each use two cores. Slow tests wait for half of their time: there are
# three processes. In all tests one process runs a file: its fixtures are made once. conftest.py
# orders the files. Threads of a training that wait for each other leave the cores to others.
# Bytecode is kept: each process would compile the project anew.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE PYTHONDONTWRITEBYTECODE= pytest --numprocesses
# The locks name no package index.
COMPILE := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: help repro search check test plan ui sync clean site pictures lock
.DELETE_ON_ERROR:

help:
	@echo "make repro                every table and figure                     72 minutes, 2 cores"
	@echo "make repro ONLY=table4d   one table or figure, and what it needs     9 minutes"
	@echo "make search ONLY=sigma    a search of experiments/search_*.yaml      7 minutes"
	@echo "make ui                   the runs in MLflow's pages, PORT=5000      until Ctrl-C"
	@echo "make sync                 sends to MLflow what its server missed     seconds"
	@echo "make clean                lists what runs left; ARGS=--yes deletes   seconds"
	@echo "make plan                 dvc.yaml from params.yaml, experiments/    seconds"
	@echo "make check                format, lint, types, fast tests            2 minutes"
	@echo "make test                 all checks                                 20 minutes"
	@echo "make site                 the documents as a site, build/site       seconds"
	@echo "make pictures             the pictures of README and docs            10 seconds"
	@echo "make lock                 the locks from pyproject.toml              20 seconds"
	@echo "The first one that needs packages installs 6 GB into .venv."

repro: .venv/run
	@python -m pipeline.repro $(ONLY)

search: .venv/run
	@test -n "$(ONLY)" || { echo "error: name a search: make search ONLY=sigma"; exit 1; }
	@python -m pipeline.search $(ONLY)

plan: .venv/run
	@python -m pipeline.plan

sync: .venv/run
	@python -m pipeline.sync $(ARGS)

clean: .venv/run
	@python -m pipeline.clean $(ARGS)

ui: .venv/run
	@python -m pipeline.ui --port $(PORT)

check: .venv/dev
	ruff format --check .
	ruff check .
	mypy
	$(PYTEST) 2 --dist worksteal -m "not slow and not gpu and not privileged"

test: .venv/dev
	ruff format --check .
	ruff check .
	mypy
	$(PYTEST) 3 --dist loadfile --no-loadscope-reorder

site: .venv/dev
	zensical build --strict

pictures: .venv/dev
	@python -m docs.pictures

# ARGS=--upgrade takes the newest versions. Without, versions stay where they can.
lock: .venv/dev
	$(COMPILE) --extra pipeline $(ARGS) --output-file requirements.lock
	$(COMPILE) --extra pipeline --extra export --extra dev --constraint requirements.lock $(ARGS) \
	  --output-file requirements-dev.lock
	$(COMPILE) --extra pipeline --extra cluster --constraint requirements.lock $(ARGS) \
	  --output-file deploy/requirements.lock

.venv/run: requirements.lock bootstrap.sh
	@$(BOOTSTRAP) run

.venv/dev: requirements-dev.lock requirements.lock bootstrap.sh
	@$(BOOTSTRAP) dev
