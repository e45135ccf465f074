# Every command a developer needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage test-oldest test-python mutants lint format gen descriptors contract ghz grpcurl clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## make .venv and install everything

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit("sdgrpc needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[server]' --group dev
	@touch $@

demo: setup ## start a server, draw over gRPC, write demo/
	$(BIN)/sdgrpc demo --output demo

test: setup ## the whole test suite
	$(BIN)/python -m pytest

coverage: setup ## the suite with branch coverage, which must not fall below the floor in pyproject.toml
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-report=html:build/coverage

test-oldest: setup ## the suite on the oldest dependencies that pyproject.toml allows
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python build/oldest
	VIRTUAL_ENV=build/oldest $(BIN)/uv pip install --quiet --resolution lowest-direct -e '.[server]' --group dev
	build/oldest/bin/python -m pytest

test-python: ## the suite on another Python: make test-python PYTHON=python3.13
	$(PYTHON) -m venv build/python
	build/python/bin/python -m pip install --quiet --upgrade pip
	build/python/bin/python -m pip install --quiet -e '.[server]' --group dev
	build/python/bin/python -m pytest

mutants: setup ## change the schedulers', rules' and formulas' code line by line and list what no test misses
	$(BIN)/python -m tools.mutants

lint: setup ## ruff, mypy --strict, buf lint and format, generated code fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint protos
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/buf breaking protos --against protos/released.binpb
	$(BIN)/python tools/generate.py --check
	$(BIN)/python -m tools.settings_docs --check

format: setup ## format Python and protos
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format --write protos

gen: setup ## regenerate src/sdgrpc/v1 and the clients' stubs from protos/; Go's and Rust's where go and cargo are installed
	$(BIN)/python tools/generate.py
	$(BIN)/python -m tools.settings_docs
	$(BIN)/python -m tools.generate_clients python $$(command -v go >/dev/null && echo go)
	@if command -v cargo >/dev/null; then cd clients/rust && cargo run --quiet -p codegen; fi

descriptors: setup ## write build/sdgrpc.protoset, the contract for tools without reflection
	@mkdir -p build
	$(BIN)/buf build protos --as-file-descriptor-set --output build/sdgrpc.protoset#format=binpb

contract: setup ## accept the contract as released: later changes must not break it
	$(BIN)/buf build protos --exclude-source-info --output protos/released.binpb

ghz: setup ## install ghz with Go and put the load of 100 calls on a server
	$(BIN)/python -m tools.ghz

grpcurl: setup ## install grpcurl with Go and run the README's commands against a server
	$(BIN)/python -m tools.grpcurl

clean: ## remove what the commands above made
	rm -rf $(VENV) .tools demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
