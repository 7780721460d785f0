# One command each. Needs Python 3.11 or newer, git and make, and for the tests a Chromium; no Docker, no Redis.
# A Python that is named, as in `make test PYTHON=python3.13`, has an environment of its own.
ifeq ($(origin PYTHON), undefined)
PYTHON := $(shell command -v python3.11 || command -v python3)
VENV := .venv
else
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo check compat test lint types suite clock browser screenshots soak quality example bench bench-broker bench-quick bench-history bench-recall lock clean

help: ## What there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

install: $(INSTALLED) ## Make the virtual environment and install everything into it

demo: $(INSTALLED) ## Merge and summarize a real conversation, with every step in the history
	$(BIN)/worker demo

check: lint types ## What breaks most, in a minute and a half: unit and property tests, and one of the real broker
	$(PYTEST) $(SIDE_BY_SIDE) -m '$(ORDINARY) and not clock' --hypothesis-profile check tests/unit tests/property $(REAL_BROKER)

test: lint types suite clock example ## Every check there is

# Tests wait as much as they compute: one process more than there are cores. A test that promises a time runs alone.
PYTEST := $(BIN)/pytest --durations 15
PROCESSES ?= 3
SIDE_BY_SIDE := --numprocesses $(PROCESSES) --dist worksteal
ORDINARY := not soak and not quality
REAL_BROKER := tests/integration/test_streams_broker.py::test_a_failed_message_is_retried_until_it_succeeds

suite: $(INSTALLED) browser
	$(PYTEST) $(SIDE_BY_SIDE) -m '$(ORDINARY) and not clock'

clock: $(INSTALLED)
	$(PYTEST) -m '$(ORDINARY) and clock'

# The dashboard's tests drive a real browser. Where there is none, root on Debian gets one; others are told by the tests.
CHROMIUM := chromium chromium-browser google-chrome google-chrome-stable
browser:
	@for one in $(CHROMIUM); do command -v $$one >/dev/null && exit 0; done; \
	if command -v apt-get >/dev/null && test "$$(id -u)" = 0; then \
		apt-get update && apt-get install -y --no-install-recommends chromium; \
	fi

screenshots: $(INSTALLED) browser ## Make the pictures of the README anew, from a real run (about a quarter of an hour)
	$(BIN)/python -m docs.images.make_screenshots

soak: $(INSTALLED) ## What takes minutes: 100,000 calls through the bridge, and SOAK_SECONDS (600) of everything at once
	$(BIN)/pytest -m soak -rP

quality: $(INSTALLED) ## Summaries of eight real meetings, which must lie beside the checkout, against a person's
	$(BIN)/pytest -m quality

compat: $(INSTALLED) ## Programs and plug-ins of others on our broker, and what differs from Dramatiq's own
	$(PYTEST) $(SIDE_BY_SIDE) tests/compat

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

# Somebody else's projects, tested with the built wheel in an environment of their own, without the extras.
EXAMPLE := build/example
EXAMPLES := newsletter crawler
example: $(INSTALLED)
	rm -rf $(EXAMPLE) && mkdir -p $(EXAMPLE)
	sed -n 's/^\([a-z0-9][^\\]*\) \\$$/\1/p' requirements.lock > $(EXAMPLE)/constraints.txt
	$(BIN)/python -m build --quiet --wheel --no-isolation --outdir $(EXAMPLE)/wheels .
	for one in $(EXAMPLES); do \
		$(BIN)/python -m build --quiet --wheel --no-isolation --outdir $(EXAMPLE)/wheels examples/$$one || exit; done
	$(BIN)/python -m venv --without-pip $(EXAMPLE)/venv
	$(BIN)/pip --python $(EXAMPLE)/venv/bin/python install --quiet --disable-pip-version-check \
		--constraint $(EXAMPLE)/constraints.txt \
		$(EXAMPLE)/wheels/dramatiq_bridge-*.whl $(EXAMPLES:%='$(EXAMPLE)/wheels/%-0.1.0-py3-none-any.whl[test]')
	for one in $(EXAMPLES); do $(EXAMPLE)/venv/bin/pytest -W error -p no:cacheprovider examples/$$one || exit; done

# Benchmarks have an environment of their own: the contenders are nobody's dependencies.
bench: ## Measure the bridge, the merge and the summarizer beside others (about ten minutes)
	$(PYTHON) -m venv build/bench
	build/bench/bin/pip install --quiet --disable-pip-version-check -e '.[tasks,bench]'
	build/bench/bin/python bench/bridge.py --json build/bridge.json
	build/bench/bin/python bench/merging.py --json build/merging.json
	PYTHONHASHSEED=0 build/bench/bin/python bench/summaries.py --json build/summaries.json

bench-broker: ## Measure the broker beside other queues (about an hour and a half)
	$(PYTHON) -m venv build/bench-broker
	build/bench-broker/bin/pip install --quiet --disable-pip-version-check -e '.[bench-broker]'
	build/bench-broker/bin/python bench/broker.py --json build/broker.json

bench-quick: $(INSTALLED) ## The same for coroutines alone (about three minutes)
	mkdir -p build
	$(BIN)/python bench/broker.py --quick --json build/broker-quick.json

bench-history: $(INSTALLED) ## Measure the history with a million messages in it (about fifteen minutes)
	mkdir -p build
	$(BIN)/python bench/history.py --json build/history.json

bench-recall: $(INSTALLED) ## Measure syncs and recall, and whether the server goes on answering (about twenty minutes)
	mkdir -p build
	$(BIN)/python bench/repositories.py --json build/repositories.json
	$(BIN)/python bench/recall.py --json build/recall.json
	$(BIN)/python bench/responsiveness.py --json build/responsiveness.json
	$(BIN)/python bench/responsiveness.py --synchronous --seconds 120 --json build/synchronous.json

lock: ## Write requirements.lock anew (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra tasks --extra recall --extra web --extra gevent \
		--extra dev --generate-hashes --no-header --no-annotate --quiet --output-file requirements.lock

clean: ## Remove what make made
	rm -rf .venv .venv-* dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
