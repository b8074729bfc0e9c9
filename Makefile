# Two commands: `make up` sets up, starts everything and says where to look; `make test` sets up
# and runs all tests. Each step runs only when what it is made from has changed.
.PHONY: up test unit lint proto page bench clean
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PAGE := src/freehold/serving/gateway/page/index.html
NATIVE := CMakeLists.txt $(shell find native -type f 2>/dev/null)
WEB := $(shell find web -path web/node_modules -prune -o -type f -print 2>/dev/null)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

up: $(VENV)/installed $(PAGE)
	@exec $(BIN)/freehold up $(if $(MODEL),--model "$(MODEL)") $(UP_FLAGS)

test: $(VENV)/tested $(PAGE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd web && npm test --silent
	$(BIN)/pytest

lint: $(VENV)/tested
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

# PEERS: more flags, such as --peer-python PYTHON (where llama-cpp-python is) or --check.
bench: $(VENV)/tested
	$(BIN)/python benchmarks/engine.py $(PEERS)

proto: $(VENV)/tested
	PATH="$(CURDIR)/$(BIN):$$PATH" src/freehold/rpc/generate.sh

page: $(PAGE)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml $(NATIVE) | $(BIN)/python
	$(BIN)/pip install -q -e .
	@touch $@

# torch first and alone: any looser request pulls gigabytes of CUDA.
$(VENV)/tested: $(VENV)/installed
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -e '.[dev]'
	@tests/e2e/browser.sh
	@touch $@

web/node_modules/installed: web/package.json web/package-lock.json
	cd web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(PAGE): web/node_modules/installed $(WEB)
	cd web && npm run build --silent
	@touch $@

clean:
	rm -rf $(VENV) build web/node_modules src/freehold/serving/gateway/page
