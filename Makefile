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
.PHONY: help setup setup-all demo demo-clean test test-library test-ways test-fast sweep lint format bench clean distclean

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## system packages and the Python environment
	@lab/setup.sh

setup-all: ## also environments for the other Salt lines (the install tests)
	@lab/setup.sh all

demo: ## clone a real machine, make it a minion, destroy it; KEEP=1 leaves it running
	@started=$$(date +%s.%N); lab/setup.sh && \
	    KVMCLONE_STARTED=$$started KEEP=$(KEEP) $(PYTHON) -m lab demo

demo-clean: setup ## end a demo that was left running, and whatever crashed labs left
	@$(PYTHON) -m lab clean --all

test: setup-all ## every layer, with real guests (about 40 minutes on 2 cores)
	@$(PYTHON) -m lab images
	@if lab/apart.sh true; then set -- --jobs=2 APART=lab/apart.sh; else \
	    echo "test: no namespaces here, so one half after the other"; set -- --jobs=1; fi; \
	    $(MAKE) --no-print-directory "$$@" test-library test-ways

# Whole lines only, as two of them speak at once. Code 5: ARGS chose no test of this half.
half = set -o pipefail; { $(1) || [ $$? = 5 ]; } 2>&1 | sed --unbuffered ''

test-library:
	@$(call half,$(TWICE) tests/unit tests/functional $(ARGS))

test-ways:
	@$(call half,$(APART) $(TWICE) tests/integration tests/e2e $(ARGS))

test-fast: setup ## the layers that need no guest (under 2 minutes)
	$(PYTEST) -m 'not guest and not slow' tests/unit tests/functional $(ARGS)

sweep: setup ## kill worker and libvirtd at every point (hours); the figures go into docs/
	PYTHONPATH=_utils:. $(PYTHON) -m tests.sweep --write $(ARGS)

lint: setup ## style, format and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy _utils/saltext lab bench

format: setup ## let ruff put the files in shape
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

bench: setup-all ## clone times: raw libvirt calls, the guest's own time, Salt 3006's own driver
	$(PYTHON) -m bench

clean: ## what tests and builds left in the checkout, and crashed labs; the cache stays
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m lab clean; fi
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.cache -prune -o -name __pycache__ -type d -print -exec rm -rf {} +
	find . -path ./.cache -prune -o -name '*.egg-info' -type d -print -exec rm -rf {} +

distclean: clean ## the cache, too: environments and images
	rm -rf $(CACHE)
