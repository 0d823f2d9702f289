# Builds, runs and tests headrace. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-deps
# Pinned versions name no address: which index they come from is the machine's pip setting.
PIP_LOCKED = $(PIP) $(addprefix -r ,$(filter constraints/%.txt,$^))

FAST_SOURCES := $(wildcard server/_fast/*.pyx server/_fast/*.pxd server/_fast/*.h server/*.pxd)
STRESS_SOURCES := $(wildcard tests/stress/*.pyx tests/stress/*.pxd tests/stress/csrc/*)
PY_SOURCES = $(shell find server -name '*.py' -o -name '*.onnx' -o -name 'example.json')
PROTOS := $(shell find protos -name '*.proto')
PACKAGING := $(wildcard packaging/*.py packaging/*.c)
CLIENTS := $(patsubst %,.venvs/%/stamp,tritonclient models ovmsclient tfsclient tfsprotos grpcio grpclib grpcjs kserve \
	mlserver envoy schemathesis openvino openvinoplugin)
SANITIZED_TESTS ?= tests/fast
STRESS ?= $(or $(HEADRACE_STRESS),1)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  ARGS='...' goes to headrace (serve), pytest (test, t) or perf (ARGS=--quick); PYTHON=python3.12 picks the interpreter of .venv."

# --- environments -----------------------------------------------------------------------------------------------------

$(BIN)/python:
	@tools/prerequisites.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/stamp-runtime: constraints/build.txt constraints/runtime.txt | $(BIN)/python
	@tools/prerequisites.sh $(BIN)/python
	$(PIP_LOCKED)
	@touch $@

$(VENV)/stamp-dev: constraints/dev.txt $(VENV)/stamp-runtime
	$(PIP_LOCKED)
	@touch $@

# The console script, from an editable install that builds nothing: extensions are build's business.
$(BIN)/headrace: pyproject.toml server/__init__.py $(VENV)/stamp-runtime
	FAST_MODULES=none $(PIP) --no-build-isolation --config-settings editable_mode=compat --editable .
	@touch $@

# Clients of other projects never share our environment: each has its own, from its own lock.
.venvs/%/stamp: constraints/%.txt | $(BIN)/python
	rm -rf .venvs/$*
	$(PYTHON) -m venv .venvs/$*
	.venvs/$*/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -r $<
	@touch $@

# Node.js is optional: without it the tests of this client say that they are left out.
.venvs/grpcjs/stamp: tests/conformance/grpcjs/package.json tests/conformance/grpcjs/package-lock.json
	rm -rf .venvs/grpcjs
	@if command -v node >/dev/null && command -v npm >/dev/null; then mkdir -p .venvs/grpcjs && cp $^ .venvs/grpcjs \
	    && npm ci --silent --ignore-scripts --no-audit --no-fund --prefix .venvs/grpcjs && touch $@; \
	else tools/prerequisites.sh --optional; fi

# --- building ---------------------------------------------------------------------------------------------------------

build/release/stamp: setup.py $(FAST_SOURCES) $(VENV)/stamp-runtime
	FAST_BUILD=release $(BIN)/python setup.py --quiet build_ext
	@touch $@

build/%/stamp: setup.py $(FAST_SOURCES) $(STRESS_SOURCES) $(PY_SOURCES) $(VENV)/stamp-runtime
	FAST_BUILD=$* $(BIN)/python setup.py --quiet build
	@$(BIN)/python tools/build_info.py --variant $* --out build/$*/lib/server/_build.json
	@touch $@

.PHONY: build
build: build/release/stamp $(BIN)/headrace ## environment, extensions in place, .venv/bin/headrace
	@$(BIN)/python tools/build_info.py

.PHONY: debug asan tsan
debug: build/debug/stamp ## extensions with -O0 and failpoints, under build/debug/lib (use through PYTHONPATH)
asan: build/asan/stamp ## extensions with AddressSanitizer and UBSan, under build/asan/lib
tsan: build/tsan/stamp ## extensions with ThreadSanitizer, under build/tsan/lib

.PHONY: serve
serve: build ## set up, build and serve the demo model (ARGS='PATH --workers 2 ...')
	@exec $(BIN)/headrace serve $(ARGS)

# --- testing ----------------------------------------------------------------------------------------------------------

.PHONY: test-setup clients
test-setup: build $(VENV)/stamp-dev
	@$(MAKE) --no-print-directory -j4 clients

clients: $(CLIENTS)

.PHONY: test
test: test-setup build/debug/stamp ## set up, then lint, types and all tests but the long ones
	tools/with_variant.sh debug $(BIN)/pytest -q tests/stress $(ARGS)
	$(BIN)/pytest -q --ignore=tests/stress $(ARGS)

.PHONY: t
t: build $(VENV)/stamp-dev ## the fast tests: unit and fast, under 30 s
	$(BIN)/pytest -q -m "not slow and not stress and not lint" tests/unit tests/fast $(ARGS)

.PHONY: conformance
conformance: test-setup ## the tests with clients of other projects; writes docs/conformance.md
	$(BIN)/python tools/conformance.py

.PHONY: lint
lint: build $(VENV)/stamp-dev ## style, types, layout and import rules only
	$(BIN)/pytest -q -m lint tests/unit $(ARGS)

.PHONY: test-asan
test-asan: test-setup build/asan/stamp ## the tests of server/_fast under AddressSanitizer and UBSan
	tools/with_variant.sh asan $(BIN)/pytest -q --capture=sys -p no:cacheprovider $(SANITIZED_TESTS) $(ARGS)

.PHONY: test-tsan
test-tsan: test-setup build/tsan/stamp ## the threaded stress tests under ThreadSanitizer
	HEADRACE_STRESS=$(STRESS) tools/with_variant.sh tsan $(BIN)/pytest -q --capture=sys -p no:cacheprovider -m stress tests/stress $(ARGS)

.PHONY: stress
stress: test-setup build/debug/stamp ## long randomised runs: 10^5-10^6 cases, kills (HEADRACE_STRESS=N scales them)
	@tools/prerequisites.sh $(PYTHON) spin
	HEADRACE_STRESS=$(STRESS) tools/with_variant.sh debug $(BIN)/pytest -q tests/stress $(ARGS)
	HEADRACE_STRESS=$(STRESS) $(BIN)/pytest -q -m "not lint" --ignore=tests/stress $(ARGS)
	$(MAKE) test-tsan

.PHONY: perf
perf: build $(VENV)/stamp-dev ## performance cells against C floors; results in perf/results
	@tools/prerequisites.sh $(PYTHON) wrk strace
	$(BIN)/python -m perf $(ARGS)

# --- one executable ---------------------------------------------------------------------------------------------------

dist/headrace: packaging/headrace.spec $(PACKAGING) $(PY_SOURCES) build/release/stamp $(VENV)/stamp-dev $(BIN)/headrace
	$(BIN)/python tools/build_info.py
	HEADRACE_DIST=onefile $(BIN)/pyinstaller --noconfirm --log-level WARN --distpath dist --workpath build/pyinstaller $<

dist/headrace-onedir/headrace: packaging/headrace.spec $(PACKAGING) $(PY_SOURCES) build/release/stamp $(VENV)/stamp-dev $(BIN)/headrace
	$(BIN)/python tools/build_info.py
	HEADRACE_DIST=onedir $(BIN)/pyinstaller --noconfirm --log-level WARN --distpath dist --workpath build/pyinstaller $<

.PHONY: dist
dist: dist/headrace ## one file with everything that serving needs: dist/headrace
	@ls -lh dist/headrace | awk '{print $$9 ": " $$5}'

.PHONY: dist-onedir
dist-onedir: dist/headrace-onedir/headrace ## the same as a directory, for profiling: dist/headrace-onedir/

# With the ONNX Runtime that has CUDA and TensorRT; their libraries are the host's.
dist/headrace-gpu: packaging/headrace.spec $(PACKAGING) $(PY_SOURCES) build/release/stamp .venvs/gpu/stamp
	.venvs/gpu/bin/python tools/build_info.py
	HEADRACE_DIST=gpu .venvs/gpu/bin/pyinstaller --noconfirm --log-level WARN --distpath dist \
	    --workpath build/pyinstaller-gpu $<
	$(BIN)/python tools/build_info.py

.PHONY: dist-gpu
dist-gpu: dist/headrace-gpu ## the same for hosts with an NVIDIA GPU: dist/headrace-gpu
	@ls -lh dist/headrace-gpu | awk '{print $$9 ": " $$5}'

.PHONY: smoke
smoke: dist/headrace ## dist/headrace alone in an empty directory and environment: serve, infer, kill, stop
	$(BIN)/python packaging/smoke.py dist/headrace

# --- upkeep -----------------------------------------------------------------------------------------------------------

.PHONY: protos
protos: server/protocol/descriptors.binpb ## compile protos/ into the descriptor set that the server loads

server/protocol/descriptors.binpb: $(PROTOS) $(VENV)/stamp-dev
	$(BIN)/python tools/protos.py $@

.PHONY: lock
lock: ## resolve all dependencies anew into constraints/*.txt (ARGS='dev train': these only)
	@tools/prerequisites.sh $(PYTHON)
	$(PYTHON) tools/lock.py $(ARGS)

.PHONY: clean
clean: ## remove everything that was built, the environments too
	rm -rf build dist $(VENV) .venvs server/_build.json *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find server tests -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
