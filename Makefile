# One verb per thing a developer does. Every verb sets up by itself what it needs, quietly when it is there already.
.DEFAULT_GOAL := help
.PHONY: help setup check test bench demo explore simulate format lock clean
SHELL := /bin/bash

# Any Python from 3.11 on; the lock is made for 3.11, so that one first.
PYTHON ?= $(shell for each in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$each" && break; done)
RUN := .venv/bin/python
TESTS ?= tests
ARGS ?=
SEEDS ?= 1000

help:  ## show this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup:  ## make .venv with the locked packages and this checkout; nothing when it is current
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer is needed: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -m tests.testbed.environment

check: setup  ## formatting, lint, types, rooms (import-linter), generated schema current
	@$(RUN) -m ruff format --check --quiet .
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m mypy --no-error-summary
	@$(RUN) -m mypy --no-error-summary -p tests
	@.venv/bin/lint-imports 2>&1 | tail -n 15; exit $${PIPESTATUS[0]}
	@$(RUN) -m farshore_schema.generate --check
	@echo "make check: OK"

test: setup check  ## everything CI runs: check, the real servers installed, every test (TESTS=path ARGS=-x narrow it)
	@$(RUN) -m tests.testbed
	@$(RUN) -m pytest $(TESTS) --ignore=tests/bench $(ARGS)

bench: setup  ## benchmarks against their peers, as JSON lines (ARGS=name for one)
	@$(RUN) -m tests.testbed
	@$(RUN) -m tests.bench $(ARGS)

demo: setup  ## the main job on real servers with live clients; ends with DEMO OK
	@$(RUN) -m tests.testbed
	@$(RUN) -m tests.demo $(ARGS)

explore: setup  ## every interleaving of the small worlds of a role change (minutes)
	@$(RUN) -m tests.simulation.explore $(ARGS)

simulate: setup  ## random faults over virtual time (SEEDS=1000)
	@$(RUN) -m tests.simulation.simulate --seeds $(SEEDS) $(ARGS)

format: setup  ## format the code and mend what lint can mend
	@$(RUN) -m ruff check --quiet --fix . ; $(RUN) -m ruff format --quiet .

lock: setup  ## make requirements/dev.txt anew from pyproject.toml (ARGS=--upgrade for newer versions)
	@$(RUN) -m pip --quiet --disable-pip-version-check install uv
	@.venv/bin/uv pip compile --quiet pyproject.toml requirements/build.in --extra dev --python-version 3.11 \
		--no-header --no-emit-index-url --no-emit-find-links -o requirements/dev.txt $(ARGS)

clean:  ## remove everything the other verbs made, downloads and builds included
	@chmod -R u+w .testbed 2>/dev/null || true
	@rm -rf .venv .testbed .demo bench-results .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
