# Every target is safe to repeat. Nothing outside this directory changes, except Debian packages that are missing
# when `make` runs as root (scripts/setup.sh says which).

BIN := .venv/bin
SOURCES := src tests bench scripts
SECONDS := 60
ONLY :=

.PHONY: help setup run test lint docs-check docs-write bench fuzz clean

help:
	@echo "make run         install into .venv and show the main job on real servers (locum demo)"
	@echo "make test        install, check the sources, run every test"
	@echo "make lint        ruff, mypy, import contracts, documentation"
	@echo "make docs-check  README's and docs' command lines exist, excerpts of --help are current, links lead somewhere"
	@echo "make docs-write  bring the excerpts of --help up to date"
	@echo "make bench       measure, into bench/results.json; a part of it with ONLY=name-prefix"
	@echo "make fuzz        fuzz every parser with atheris for SECONDS=60 each; a part of it with ONLY=name-prefix"
	@echo "make clean       remove .venv and everything that was generated"

# What a user needs: the program and the demo's servers.
$(BIN)/.ready-run: pyproject.toml scripts/setup.sh
	@scripts/setup.sh run

# What a developer needs besides: the tools, and the programs that the tests run.
$(BIN)/.ready-test: pyproject.toml scripts/setup.sh
	@scripts/setup.sh test

setup: $(BIN)/.ready-test

run: $(BIN)/.ready-run
	@$(BIN)/locum demo

test: setup lint
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: setup docs-check
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs-check: setup
	$(BIN)/python -m scripts.docs_check

docs-write: setup
	$(BIN)/python -m scripts.docs_check --write

bench: setup
	$(BIN)/python -m bench.run $(if $(ONLY),--only $(ONLY))

fuzz: setup
	$(BIN)/python -m tests.fuzz.run_atheris --seconds $(SECONDS) $(if $(ONLY),--only $(ONLY))

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* \
		bench/results.json locum-data
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
