# Every command a developer needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A worker takes some 2 GiB; the tests of a file share its servers and models.
WORKERS ?= 2
# Where `make play` has its page.
PAGE ?= 127.0.0.1:8080
PARALLEL := -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo play test test-random coverage test-oldest test-python mutants lock audit sbom lint format gen descriptors contract ghz grpcurl outsiders clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## make .venv and install everything; LOCKED=1 takes just what locks/dev.txt names, by its hashes

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit("sdgrpc needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(BIN)/python -m pip install --quiet --upgrade pip
ifdef LOCKED
	$(BIN)/python -m pip install --quiet --require-hashes -r locks/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
else
	$(BIN)/python -m pip install --quiet -e '.[server,telemetry,upscale,cluster,web]' --group dev
endif
	@touch $@

demo: setup ## start a server, draw over gRPC, write demo/
	$(BIN)/sdgrpc demo --output demo

play: setup ## start a server with the embedded model and the page to draw on, and print its address
	$(BIN)/sdgrpc serve --listen 127.0.0.1:0 --web $(PAGE) --upload-dir build/loras --lora-dir src/sdgrpc/assets/tiny/loras

test: setup ## the whole test suite, in WORKERS (2) processes
	$(BIN)/python -m pytest $(PARALLEL)

test-random: setup ## the suite in another order each time
	$(BIN)/python -m pytest $(PARALLEL) -p randomly

coverage: setup ## the suite with branch coverage, which must not fall below the floor in pyproject.toml
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term:skip-covered --cov-report=html:build/coverage

test-oldest: setup ## the suite on the oldest dependencies that pyproject.toml allows
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python build/oldest
	VIRTUAL_ENV=build/oldest $(BIN)/uv pip install --quiet --resolution lowest-direct -e '.[server,telemetry,upscale,cluster,web]' --group dev
	build/oldest/bin/python -m pytest $(PARALLEL)

test-cluster: setup ## the tests over a real port and every client's, each server with two replicas on Ray
	TEST_REPLICAS=2 $(BIN)/python -m pytest tests/e2e tests/clients

test-python: ## the suite on another Python: make test-python PYTHON=python3.13
	$(PYTHON) -m venv build/python
	build/python/bin/python -m pip install --quiet --upgrade pip
	build/python/bin/python -m pip install --quiet -e '.[server,telemetry,upscale,cluster,web]' --group dev
	build/python/bin/python -m pytest $(PARALLEL)

# uv keeps the versions that a lock has, as long as they fit; UPGRADE=--upgrade takes the newest.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate $(UPGRADE)

lock: setup ## write locks/: every dependency of the image and of CI with its version and hashes
	$(LOCK) pyproject.toml --extra server --extra telemetry -c locks/shared.in -o locks/server.txt
	$(LOCK) locks/build.in -o locks/build.txt
	$(LOCK) pyproject.toml locks/build.in --extra server --extra telemetry --extra upscale --extra cluster --extra web --group dev -c locks/server.txt -o locks/dev.txt

audit: setup ## look for known vulnerabilities of what the image has; fails too where the database cannot be asked
	$(BIN)/uv tool run pip-audit@2.10.1 --strict --disable-pip --progress-spinner off -r locks/server.txt

sbom: setup ## write build/sbom.cdx.json, a CycloneDX bill of what the image has
	@mkdir -p build
	$(BIN)/uv tool run --from cyclonedx-bom==7.5.0 cyclonedx-py requirements locks/server.txt --pyproject pyproject.toml --output-reproducible --output-file build/sbom.cdx.json

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
	$(BIN)/python -m tools.dashboard --check
	$(BIN)/python -m tools.helm --check

format: setup ## format Python and protos
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format --write protos

gen: setup ## regenerate src/sdgrpc/v1 and the clients' stubs from protos/; Go's, TypeScript's and Rust's where go, npm and cargo are installed
	$(BIN)/python tools/generate.py
	$(BIN)/python -m tools.settings_docs
	$(BIN)/python -m tools.dashboard
	$(BIN)/python -m tools.helm
	$(BIN)/python -m tools.generate_clients python $$(command -v go >/dev/null && echo go) $$(command -v npm >/dev/null && echo typescript)
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

outsiders: setup ## draw with grpcurl, ghz, curl, the openai client and the page in Chromium, and check every picture
	$(BIN)/python -m tools.outsiders

clean: ## remove what the commands above made
	rm -rf $(VENV) .tools demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
