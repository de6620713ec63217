# Tenure's commands. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := 0.13.8

.DEFAULT_GOAL := help
.PHONY: help test check lock

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

# Everything the other commands need; made again when the lock changes.
$(BIN)/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tenure needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing the locked dependencies into .venv ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --require-hashes requirements.lock
	@touch $@

test: $(BIN)/.installed ## pass all tests, against a real Postgres and a real RabbitMQ
	@$(BIN)/pytest

check: $(BIN)/.installed ## lint, types and the rules between packages
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy .
	@$(BIN)/lint-imports

lock: $(BIN)/.installed ## resolve the dependencies again into requirements.lock
	@VIRTUAL_ENV=.venv $(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv lock
	@$(BIN)/uv export --quiet --all-packages --all-groups --no-emit-workspace --no-header --output-file requirements.lock
