# autotrace: everything from a fresh Debian 12 or Ubuntu with git and make. `make help` lists the targets.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= /usr/bin/python3
CLANG ?= clang
LLVM_STRIP ?= llvm-strip
# sudo takes /usr/local/go/bin, where Go's own installer puts it, off the PATH. Empty: apt's Go is used.
ifndef GO
GO := $(firstword $(shell command -v go) $(wildcard /usr/local/go/bin/go))
endif
export GO

# The environments made here must not see the caller's own.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

VENV := .venv
BIN := $(VENV)/bin
STAMPS := build/stamps
STEP := scripts/step.sh

BPF_SOURCES := $(wildcard bpf/*/*.bpf.c)
BPF_OBJECTS := $(addprefix autotrace/bpf/,$(notdir $(BPF_SOURCES:.c=.o)))
BPF_FLAGS := -g -O2 -Wall -Werror -target bpf -mcpu=v3 -D__TARGET_ARCH_x86 -Ibpf/include
vpath %.bpf.c $(sort $(dir $(BPF_SOURCES)))

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{ printf "  make %-9s %s\n", $$1, $$2 }'

# --- set-up -------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(STAMPS)/venv compiled bpf services ## install what is needed, build everything; leaves .venv/bin/autotrace
	@echo "==> ready: $(BIN)/autotrace"

# PACKAGES=by-hand: what is needed was installed in another way.
.PHONY: packages
packages:
	@scripts/check_python.sh $(PYTHON)
ifneq ($(PACKAGES),by-hand)
	@$(STEP) "system packages" \
		"Read apt's message above; a broken network or another running apt are the usual reasons. Then run make again." \
		scripts/install_packages.sh
endif

.PHONY: test-packages
test-packages: packages
ifneq ($(PACKAGES),by-hand)
	@$(STEP) "system packages of the tests" "Read apt's message above; then run make again." \
		scripts/install_packages.sh tests
endif

$(STAMPS):
	@mkdir -p $@

$(STAMPS)/venv: pyproject.toml scripts/make_venv.sh | packages $(STAMPS)
	@$(STEP) "Python environment in $(VENV)" "Read pip's message above; run make again once the network is back." \
		env AUTOTRACE_COMPILED=0 scripts/make_venv.sh $(PYTHON) $(VENV) --editable ".[dev]"
	@touch $@

# --- compiled modules ---------------------------------------------------------------------------------------

# The modules that every exchange goes through (setup.py), beside their sources. COMPILED=0: none, the sources run.
COMPILED ?= 1
EXTENSIONS = autotrace/*.so autotrace/*/*.so

.PHONY: compiled
compiled: $(if $(filter 0,$(COMPILED)),interpreted,$(STAMPS)/compiled) ## compile the hot modules; COMPILED=0 removes them

.PHONY: interpreted
interpreted:
	@rm -f $(EXTENSIONS) $(STAMPS)/compiled

$(STAMPS)/compiled: setup.py $(STAMPS)/venv $(wildcard autotrace/*.py autotrace/*/*.py)
	@$(STEP) "hot modules, compiled by mypyc" "Without a C compiler: make COMPILED=0 ..., which is slower." \
		$(BIN)/python -W ignore setup.py --quiet build_ext --inplace
	@touch $(EXTENSIONS) $@

# --- BPF ----------------------------------------------------------------------------------------------------

.PHONY: bpf
bpf: $(STAMPS)/abi ## build the BPF objects and check that autotrace/abi.py fits them

autotrace/bpf build/bpf:
	@mkdir -p $@

autotrace/bpf/%.bpf.o: %.bpf.c | packages autotrace/bpf build/bpf
	@$(STEP) "$@ from $<" "Correct the source; any warning is an error." \
		$(CLANG) $(BPF_FLAGS) -MMD -MP -MF build/bpf/$*.bpf.d -MT $@ -c $< -o $@
	@$(LLVM_STRIP) -g $@

-include $(wildcard build/bpf/*.bpf.d)

$(STAMPS)/abi: $(BPF_OBJECTS) $(wildcard autotrace/abi.py autotrace/kernel/abigen.py) $(STAMPS)/venv
	@$(STEP) "autotrace/abi.py against the BTF of the objects" "If bpf/include/abi.h was changed on purpose: make abi" \
		$(BIN)/python -m autotrace.kernel.abigen --check
	@touch $@

# No arm64 machine runs the tests yet; that the programs compile for it is kept true.
ARM64_OBJECTS := $(addprefix build/arm64/,$(notdir $(BPF_OBJECTS)))
ARM64_FLAGS := $(subst _x86,_arm64,$(BPF_FLAGS))

build/arm64:
	@mkdir -p $@

build/arm64/%.bpf.o: %.bpf.c $(wildcard bpf/*/*.h) | packages build/arm64
	@$(STEP) "$@ from $<" "Correct the source: what differs between architectures stands in bpf/include/arch.h." \
		$(CLANG) $(ARM64_FLAGS) -c $< -o $@

.PHONY: abi
abi: $(BPF_OBJECTS) $(STAMPS)/venv ## write autotrace/abi.py anew after a change of bpf/include/abi.h
	@$(BIN)/python -m autotrace.kernel.abigen

# --- demo services ------------------------------------------------------------------------------------------

.PHONY: services
services: $(STAMPS)/storefront $(STAMPS)/catalogue build/demo/pricing
services: $(STAMPS)/warehouse $(STAMPS)/courier $(STAMPS)/proto build/demo/delivery ## build the demo services

$(STAMPS)/storefront: demo_services/python_flask/requirements.txt scripts/make_venv.sh | packages $(STAMPS)
	@$(STEP) "demo storefront: Flask and gunicorn" "Read pip's message above; run make again once the network is back." \
		scripts/make_venv.sh $(PYTHON) build/demo/storefront-venv --requirement $<
	@touch $@

$(STAMPS)/catalogue: demo_services/node_express/package.json demo_services/node_express/package-lock.json | packages $(STAMPS)
	@$(STEP) "demo catalogue: Express" "Read npm's message above; run make again once the network is back." \
		npm ci --prefix demo_services/node_express --no-audit --no-fund --loglevel=error
	@touch $@

$(STAMPS)/courier: demo_services/node_grpc/package.json demo_services/node_grpc/package-lock.json | packages $(STAMPS)
	@$(STEP) "demo courier: grpc-js" "Read npm's message above; run make again once the network is back." \
		npm ci --prefix demo_services/node_grpc --no-audit --no-fund --loglevel=error
	@touch $@

$(STAMPS)/warehouse: demo_services/python_grpc/requirements.txt scripts/make_venv.sh | packages $(STAMPS)
	@$(STEP) "demo warehouse: grpcio" "Read pip's message above; run make again once the network is back." \
		scripts/make_venv.sh $(PYTHON) build/demo/warehouse-venv --requirement $<
	@touch $@

# GO may be apt's, which the step before has only just installed.
build/demo/protoc-gen-go: demo_services/go_grpc/go.mod demo_services/go_grpc/go.sum | packages
	@$(STEP) "demo gRPC: protobuf's plugins for Go" "Read the Go compiler's message above; it needs Go 1.19 or newer." \
		sh -c 'mkdir -p build/demo && cd demo_services/go_grpc && CGO_ENABLED=0 $(or $(GO),go) build -o "$(CURDIR)/build/demo/" \
			google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc'
	@touch $@

$(STAMPS)/proto: demo_services/shop.proto scripts/make_demo_proto.sh $(STAMPS)/warehouse build/demo/protoc-gen-go
	@$(STEP) "demo gRPC: code from $<" "Correct $<." \
		scripts/make_demo_proto.sh build/demo/warehouse-venv/bin/python build/demo
	@touch $@

build/demo/delivery: $(wildcard demo_services/go_grpc/*.go) demo_services/go_grpc/go.mod $(STAMPS)/proto
	@$(STEP) "demo delivery: gRPC-Go" "Read the Go compiler's message above; it needs Go 1.19 or newer." \
		sh -c 'cd demo_services/go_grpc && CGO_ENABLED=0 $(or $(GO),go) build -o "$(CURDIR)/$@" .'

build/demo/pricing: $(wildcard demo_services/go_nethttp/*.go) demo_services/go_nethttp/go.mod | packages
	@$(STEP) "demo pricing: Go" "Read the Go compiler's message above; it needs Go 1.19 or newer." \
		sh -c 'cd demo_services/go_nethttp && CGO_ENABLED=0 $(or $(GO),go) build -o "$(CURDIR)/$@" .'

# --- use ----------------------------------------------------------------------------------------------------

.PHONY: demo
demo: setup ## trace the demo shop and show the traces (as root); KEEP=1 stays up until Ctrl-C
	@$(BIN)/python demo_services/run_demo.py $(if $(KEEP),--keep) $(DEMO_ARGS)

.PHONY: run
run: setup ## run the agent (as root): make run ARGS="--port 8080"
	@$(BIN)/autotrace run $(ARGS)

# --- quality ------------------------------------------------------------------------------------------------

.PHONY: test
test: setup test-packages $(ARM64_OBJECTS) lint ## run every test (as root); PYTEST_ARGS="-k demo" chooses
	@echo "==> tests"
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: lint
lint: $(STAMPS)/venv ## check style, types and which part imports which
	@$(STEP) "ruff check" "$(BIN)/ruff check --fix repairs some of it." $(BIN)/ruff check --quiet .
	@$(STEP) "ruff format" "$(BIN)/ruff format repairs it." $(BIN)/ruff format --quiet --check .
	@$(STEP) "mypy" "Correct the types." $(BIN)/mypy --no-error-summary
	@$(STEP) "mypy of the tests" "Correct the call." $(BIN)/mypy --no-error-summary --config-file tests/mypy.ini
	@$(STEP) "clang-format" "clang-format -i FILE repairs it." \
		clang-format --dry-run -Werror $$(find bpf -name '*.[ch]')
	@$(STEP) "import contracts" "docs/architecture.md says which part may import which." \
		$(BIN)/lint-imports --no-logo

.PHONY: vmtest
vmtest: setup test-packages ## run the core tests on other kernels in QEMU (as root); ARGS="--kernel 6.12" chooses
	@$(BIN)/python -m tests.vm $(ARGS)

.PHONY: bench
bench: setup ## measure cost and speed (as root), print a table, write build/bench.json
	@$(BIN)/python -m bench $(ARGS)

.PHONY: vmbench
vmbench: setup test-packages ## count instructions per flavour of the hooks in a guest (as root); build/vmbench.json
	@$(BIN)/python -m bench.vm $(ARGS)

.PHONY: wheel
wheel: bpf ## build a wheel that carries the BPF objects and try it in a clean environment
	@rm -rf dist build/lib build/bdist.*
	@$(STEP) "wheel" "Read pip's message above." \
		$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@$(STEP) "wheel in a clean environment" "The wheel lacks something: see [tool.setuptools] in pyproject.toml." \
		scripts/check_wheel.sh $(PYTHON) dist/autotrace-*.whl $(BPF_OBJECTS)

.PHONY: clean
clean: ## remove everything that was built, the Python environment too
	rm -rf build dist autotrace/bpf $(EXTENSIONS) *.egg-info $(VENV) demo_services/node_*/node_modules
	rm -rf demo_services/python_*/shop_pb2*.py demo_services/go_grpc/shop
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
