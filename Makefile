PYTHON ?= python3
BIN := .venv/bin

.PHONY: .venv test test-with-a-broker test-without-a-broker demo bench docs format clean

.venv: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

test: .venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --config-file docs/mkdocs.yml
	+$(MAKE) --no-print-directory -j2 test-with-a-broker test-without-a-broker

test-with-a-broker: .venv
	$(BIN)/pytest -m broker --durations=10

# Beside those that mostly wait for a broker; in a file, so that the two do not mix.
test-without-a-broker: .venv
	@mkdir -p build
	@$(BIN)/pytest -m "not broker" --durations=10 > build/test-without-a-broker.log 2>&1; \
	code=$$?; cat build/test-without-a-broker.log; exit $$code

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
