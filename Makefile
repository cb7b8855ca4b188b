PYTHON ?= python3
BIN := .venv/bin

.PHONY: .venv test demo bench docs format clean

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
	@mkdir -p build  # tests that need no broker run beside those that mostly wait for one
	@$(BIN)/pytest -m "not broker" --durations=5 > build/tests-without-a-broker.log 2>&1 & beside=$$!; \
	$(BIN)/pytest -m broker --durations=10; code=$$?; \
	wait $$beside || code=1; \
	cat build/tests-without-a-broker.log; exit $$code

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
