# Tenure's commands. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement deploy/build.lock
EXPORT := $(BIN)/uv export --quiet --frozen --no-emit-workspace --no-header

.DEFAULT_GOAL := help
.PHONY: help demo up test test-compose check docs mutants chaos rolling bench overload audit parking backup restore sbom lock

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

# Everything the other commands need; made again when the lock changes.
$(BIN)/.installed: requirements.lock deploy/build.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tenure needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing the locked dependencies into .venv ..."
	@$(PYTHON) -m venv .venv
	@$(UV)
	@VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --require-hashes requirements.lock
	@touch $@

demo: $(BIN)/.installed ## onboard the tenants of examples/tenants.json and see one of them undone
	@$(BIN)/python -m deploy.local.demo

up: $(BIN)/.installed ## run Tenure until Ctrl-C; PROCESSES=1 gives each service a process of its own
	@exec $(BIN)/python -m deploy.local.up $(if $(PROCESSES),--processes)

test: $(BIN)/.installed ## pass all tests, against a real Postgres and a real RabbitMQ; about 50 minutes on two processors
	@$(BIN)/python -u -m tests.everything

test-compose: $(BIN)/.installed ## the end-to-end tests through a Compose stack of its own, which is then broken on purpose; needs Docker
	@$(BIN)/python -u -m tests.compose $(ARGS)

check: $(BIN)/.installed ## lint, types, the rules between packages, fresh generated pages, and other tools' word on what deploys Tenure
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy .
	@$(BIN)/lint-imports
	@$(BIN)/python -m docs --check
	@$(BIN)/python -m deploy.checks

docs: $(BIN)/.installed ## write the generated pages
	@$(BIN)/python -m docs

mutants: $(BIN)/.installed ## plant deliberate bugs, one at a time, and see whether the tests notice: WORDS="barrier"
	@$(BIN)/python -u -m tests.mutants $(WORDS)

chaos: $(BIN)/.installed ## kill, freeze, cut off and starve everything amid load, and check every promise: ARGS="--seed 1"
	@$(BIN)/python -u -m tests.chaos $(ARGS)

rolling: $(BIN)/.installed ## put this code over an earlier one, service by service, amid load: ARGS="--from HEAD~1"
	@$(BIN)/python -u -m tests.rolling $(ARGS)

bench: $(BIN)/.installed ## onboardings, environments and usage per second beside the bare floor, and memory before full queues; about 10 minutes
	@$(BIN)/python -u -m bench

overload: $(BIN)/.installed ## offer ten times what can be done, then empty a queue of a million messages: ARGS="--backlog billing"
	@$(BIN)/python -u -m bench.overload $(ARGS)

audit: $(BIN)/.installed ## compare what all databases hold with how every workflow ended, while `make up` runs
	@$(BIN)/python -m deploy.audit

parking: $(BIN)/.installed ## see, replay or discard messages that no service could handle: ARGS="list"
	@$(BIN)/python -m deploy.parking $(ARGS)

backup: $(BIN)/.installed ## keep the Compose stack as it is at one moment, in a new folder: TO=backups/monday
	@$(BIN)/python -u -m deploy.backup save $(TO)

restore: $(BIN)/.installed ## make an empty Compose stack what it was when it was backed up: FROM=backups/monday
	@$(BIN)/python -u -m deploy.backup restore $(FROM)

sbom: $(BIN)/.installed ## write a bill of materials of each image into sbom/, as CycloneDX has it
	@$(BIN)/python -m deploy.supply.bills

lock: $(BIN)/.installed ## resolve the dependencies again into requirements.lock, and of each image into its own
	@$(UV)
	@$(BIN)/uv lock
	@$(EXPORT) --all-packages --all-groups --output-file requirements.lock
	@$(EXPORT) --only-group build --output-file deploy/build.lock
	@for project in services/*/pyproject.toml deploy/pyproject.toml; do folder=$${project%/*}; \
	  $(EXPORT) --package "tenure-$${folder##*/}" --output-file "$$folder/requirements.lock" || exit 1; done
