# Everything sets itself up: on a bare Debian 12, as root, each target may be the first one.
SHELL := /bin/bash
CACHE := $(or $(KVMCLONE_CACHE),$(CURDIR)/.cache)
PYTHON := $(CACHE)/venv/bin/python
PYTEST := $(PYTHON) -m pytest
# Tries a few failures a second time, and names them: tests/twice.py.
TWICE := $(PYTHON) -m tests.twice
# Extra words for pytest: make test ARGS='-k quick -x'
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-all demo demo-fleet demo-clean test test-all test-fast sweep lint format bench clean distclean

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## system packages and the Python environment
	@lab/setup.sh

setup-all: ## also environments for the other Salt lines (the install tests)
	@lab/setup.sh all

demo: ## clone a real machine, make it a minion, destroy it; KEEP=1 leaves it running
demo-fleet: ## six minions on three hosts, of which one dies in the middle; KEEP=1 likewise
demo demo-fleet:
	@started=$$(date +%s.%N); lab/setup.sh && \
	    KVMCLONE_STARTED=$$started KEEP=$(KEEP) $(PYTHON) -m lab $@

demo-clean: setup ## end a demo that was left running, and whatever crashed labs left
	@$(PYTHON) -m lab clean --all

# The parts of `make test`, those that take longest first. Every test is in exactly one of them:
# what no other names is in "e2e", "salt" or "rest".
PARTS := salt e2e lifecycle guest hosts keys cloud inventory ways rest sweep unit
words-guest := tests/functional/guest
words-keys := tests/e2e/test_keys.py tests/e2e/test_create.py
words-e2e := $(filter-out $(words-keys),$(wildcard tests/e2e/test_*.py))
words-cloud := $(wildcard tests/integration/test_salt_cloud*.py)
words-ways := tests/integration/test_ways_in.py tests/integration/test_packaged_habits.py
words-salt := $(filter-out $(words-cloud) $(words-ways),$(wildcard tests/integration/test_*.py))
words-lifecycle := tests/functional/lifecycle
words-sweep := tests/functional/test_sweep.py
words-hosts := tests/functional/hosts tests/functional/hypervisor
words-inventory := tests/functional/inventory
words-rest := $(filter-out $(foreach part,$(PARTS),$(words-$(part))),\
    $(patsubst %/__init__.py,%,$(wildcard tests/functional/*/__init__.py)) \
    $(wildcard tests/functional/test_*.py))
words-unit := tests/unit

# A part waits now and then: for a guest to settle, for a minion, for a deadline.
JOBS ?= $(shell echo $$(($$(nproc) + 1)))

# What `make test` leaves to `make test-all`: minutes of emulation for one promise.
CHOICE ?= not long

test-all: export CHOICE :=
test-all: test ## the same with the tests that take longest (a quarter of an hour more)

test: setup-all ## every layer, with real guests (about 50 minutes on 2 cores)
	@$(PYTHON) -m lab images
	@if lab/apart.sh true; then set -- --jobs=$(JOBS) APART=lab/apart.sh; else \
	    echo "test: no namespaces here, so one part after the other"; set -- --jobs=1; fi; \
	    $(MAKE) --no-print-directory --keep-going "$$@" $(addprefix part-,$(PARTS))

# Whole lines, and whose: several parts speak at once. Code 5: ARGS chose no test of this one.
part = @set -o pipefail; { $(1) || [ $$? = 5 ]; } 2>&1 | sed --unbuffered 's/^/$*: /'

# Thousands of processes load the library: where bytecode is not wanted, each would compile it.
part-% fast-%: export PYTHONDONTWRITEBYTECODE :=

# It installs packages of Debian into its guests; no network leads out of the other labs.
part-guest: override APART :=

part-%:
	$(call part,$(APART) $(TWICE) $(words-$*) -m '$(CHOICE)' $(ARGS))

# Of the unit tests those that wait for processes, and those that compute.
words-waiting := tests/unit/guest tests/unit/hosts tests/unit/master tests/unit/system
words-computing := $(filter-out $(words-waiting),\
    $(patsubst %/__init__.py,%,$(wildcard tests/unit/*/__init__.py)) $(wildcard tests/unit/test_*.py))
words-functional := tests/functional

test-fast: setup ## the layers that need no guest (about a minute on 2 cores)
	@$(MAKE) --no-print-directory --keep-going --jobs=3 $(addprefix fast-,functional computing waiting)

fast-%:
	$(call part,$(PYTEST) -m 'not guest and not slow' $(words-$*) $(ARGS))

sweep: setup ## kill worker and libvirtd at every point (hours); the figures go into docs/
	PYTHONPATH=_utils:. $(PYTHON) -m tests.sweep --write $(ARGS)

lint: setup ## style, format and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy _utils/saltext lab bench

format: setup ## let ruff put the files in shape
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

bench: setup-all ## how long it takes, against the least that it needs: docs/performance.md
	$(PYTHON) -m bench

clean: ## what tests and builds left in the checkout, and crashed labs; the cache stays
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m lab clean; fi
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.cache -prune -o -name __pycache__ -type d -print -exec rm -rf {} +
	find . -path ./.cache -prune -o -name '*.egg-info' -type d -print -exec rm -rf {} +

distclean: clean ## the cache, too: environments and images
	rm -rf $(CACHE)
