# Everything that is built or brought in lands in .run/, which git ignores.
STARTED_AT := $(shell date +%s)
export RANKSTREAM_STARTED_AT := $(STARTED_AT)

RUN := .run
PY := $(RUN)/venv/bin/python
STAMP := $(RUN)/venv.stamp
LOCAL := $(PY) -m deploy.local
# Tests of attributes name their own; the others are of the features that are always there.
PYTEST := env -u RANKSTREAM_USER_ATTRIBUTES -u RANKSTREAM_ITEM_ATTRIBUTES $(PY) -m pytest
PROTOS := $(wildcard proto/rankstream/pb/*.proto)
PACKAGES := $(wildcard rankstream services pipelines deploy bench tests)
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

.PHONY: help
help:
	@echo 'make TARGET [ARGS="..."] [PYTHON=python3.11]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r name what; do printf '%-13s %s\n' "$$name" "$$what"; done

# Rebuilt when a lock or pyproject.toml is newer: the stamp's time says when it was built.
$(STAMP): pyproject.toml deploy/local/requirements.txt deploy/local/uv.txt deploy/local/environment.py
	@python="$(PYTHON)"; \
	for candidate in python3.11 python3 python3.12 python3.13; do \
		if [ -z "$$python" ] && $$candidate -c '$(SUPPORTED)' 2>/dev/null; then python=$$candidate; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'unsupported_python: no Python 3.11 to 3.13 on PATH. Nothing was installed.' \
			'Install Python 3.11, or name one: make PYTHON=/path/to/python3.11' >&2; \
		exit 1; \
	fi; \
	"$$python" deploy/local/environment.py $(RUN)/venv
	@touch $@

.PHONY: demo
demo: $(STAMP) ## the whole system on real data, until Ctrl-C (ARGS=--exit: stop by itself)
	@$(LOCAL) demo $(ARGS)

.PHONY: up
up: $(STAMP) ## start Kafka, Redis and the six services on loopback
	@$(LOCAL) up $(ARGS)

.PHONY: down
down: ## stop all that runs, leave nothing behind (data stays in .run/state)
	@if [ -x $(PY) ]; then $(LOCAL) down $(ARGS); else echo 'Nothing runs.'; fi

.PHONY: status
status: $(STAMP) ## what runs, its health, memory and ports; exit code 1 if anything is unhealthy
	@$(LOCAL) status $(ARGS)

.PHONY: logs
logs: $(STAMP) ## the last lines of every log (ARGS="ranker --follow": one of them, as it grows)
	@$(LOCAL) logs $(ARGS)

.PHONY: test
test: $(STAMP) ## all tests but the slow ones, on real Kafka and Redis
	@$(LOCAL) provision
	$(PYTEST) -m "not slow" $(ARGS)

.PHONY: test-slow
test-slow: $(STAMP) ## long simulations and crash tests
	@$(LOCAL) provision
	$(PYTEST) -m slow $(ARGS)

.PHONY: chaos
chaos: $(STAMP) ## kill, restart and fill everything under 1 M events; exit code 1 if anything differs
	@$(LOCAL) provision
	$(PY) -m tests.chaos $(ARGS)

.PHONY: soak
soak: $(STAMP) ## 30 minutes of traffic whose keys come and go; fails if memory is not flat
	@$(LOCAL) provision
	$(PY) -m tests.soak $(ARGS)

.PHONY: check
check: $(STAMP) ## format, lint, types, generated code, locks
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy --strict $(PACKAGES)
	@mkdir -p $(RUN)/proto && rm -rf $(RUN)/proto/*
	@$(MAKE) proto OUT=$(RUN)/proto
	diff -r --exclude=__init__.py --exclude=__pycache__ $(RUN)/proto/rankstream/pb rankstream/pb
	$(PY) -m deploy.local.locks --check

.PHONY: fmt
fmt: $(STAMP) ## format, and mend what the linter can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

.PHONY: bench
bench: $(STAMP) ## all measurements, into bench/out; bench-NAME: one of them
	$(PY) -m bench $(ARGS)

bench-%: $(STAMP)
	$(PY) -m bench $*

.PHONY: env
env: $(STAMP) ## the Python environment; env-spark, env-airflow, env-kfp: one of their own

env-%: $(STAMP)
	@$(PY) -m deploy.local.environments $*

.PHONY: proto
OUT := .
proto: $(STAMP) ## generate rankstream/pb from proto/
	$(PY) -m grpc_tools.protoc -I proto --python_out=$(OUT) --pyi_out=$(OUT) $(PROTOS)
	$(PY) -m grpc_tools.protoc -I proto --grpc_python_out=$(OUT) $(shell grep -l '^service ' $(PROTOS))

.PHONY: docs
docs: $(STAMP) ## write docs/settings.md from the settings classes
	$(PY) -m deploy.settings_table > docs/settings.md

.PHONY: lock
lock: $(STAMP) ## resolve all requirements again and write the hashed locks
	$(PY) -m deploy.local.locks

.PHONY: clean
clean: down ## stop all, then delete .run: environment, tools and data
	rm -rf $(RUN)
