PYTHON ?= python3
BIN := .venv/bin

PARTS := test-broker-and-cli test-with-a-broker test-exactly-once-a-to-p test-docs-and-exactly-once-q-to-r \
	test-exactly-once-s-to-z test-simulation test-without-a-broker check
BROKER_AND_CLI := tests/benchmarks tests/broker tests/chaos tests/cli
DOCS := tests/conformance tests/docs
# Last in their part: they are many at a time, with short timeouts, and most others have ended by then.
ERRORS := tests/errors

.PHONY: .venv test $(PARTS) packages demo bench docs format clean

.venv: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

test: .venv
	+$(MAKE) --no-print-directory -j$(words $(PARTS)) $(PARTS)

check: .venv
	@$(call logged,$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports --no-cache && \
		NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --config-file docs/mkdocs.yml)

# They mostly wait, each for brokers of its own. The logs of all but one go to files, so that they do not mix.
test-with-a-broker: .venv
	$(BIN)/pytest -m broker --ignore=tests/exactly_once $(BROKER_AND_CLI:%=--ignore=%) $(DOCS:%=--ignore=%) \
		--ignore=$(ERRORS) --durations=15

test-broker-and-cli: .venv
	@$(call logged,$(BIN)/pytest -m broker $(BROKER_AND_CLI) --durations=10)

test-exactly-once-a-to-p: .venv
	@$(call logged,$(BIN)/pytest -m broker tests/exactly_once/test_[a-p]*.py --durations=10)

test-docs-and-exactly-once-q-to-r: .venv
	@$(call logged,$(BIN)/pytest -m broker $(DOCS) tests/exactly_once/test_[q-r]*.py --durations=10)

test-exactly-once-s-to-z: .venv
	@$(call logged,$(BIN)/pytest -m broker tests/exactly_once/test_[s-z]*.py $(ERRORS) --durations=10)

test-simulation: .venv
	@$(call logged,$(BIN)/pytest tests/simulation --durations=10)

test-without-a-broker: .venv
	@$(call logged,$(BIN)/pytest -m "not broker" --ignore=tests/simulation --durations=10)

logged = mkdir -p build; ($(1)) > build/$@.log 2>&1; code=$$?; cat build/$@.log; exit $$code

packages: .venv
	$(BIN)/pytest tests/packaging --all-pythons

demo: .venv
	$(BIN)/streamlib demo

bench: .venv
	$(BIN)/python -m benchmarks.latency --rates 100,500 --seconds 5
	$(BIN)/python -m benchmarks.throughput --records 300000

docs: .venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --config-file docs/mkdocs.yml

format: .venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find streamlib tests -name __pycache__ -type d -prune -exec rm -rf {} +
