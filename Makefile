# uringloop: each target sets up what it needs on a fresh Debian 12, then does one thing.
# `make help` lists them. The set-up itself is .ci/setup.sh; the second run of it costs nothing.

BUN := node_modules/.bin/bun
TSC := node_modules/.bin/tsc
BIOME := node_modules/.bin/biome
C_FILES := $(shell find liburing-shim bench test examples -name build -prune -o -name '*.[ch]' -print 2>/dev/null)
CHECKS := check-biome check-c check-types check-abi check-style
ARGS ?=
SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help setup setup-build setup-test shim abi bench test sim fuzz soak mutate coverage check $(CHECKS) format run clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: setup-test ## apt packages and node_modules (every target does its own part of this)

setup-build:
	@.ci/setup.sh build

setup-test:
	@.ci/setup.sh test

shim: setup-build ## build liburing-shim/build/libshim.so
	@$(MAKE) --no-print-directory -C liburing-shim

abi: setup-build ## write ffi/abi.ts anew from liburing-shim/abi.h
	@$(BUN) ffi/generate-abi.ts

bench: shim ## io_uring against the runtime's loop on this machine (ARGS="..." goes to bench/run.ts)
	@$(MAKE) --no-print-directory -C bench
	@$(BUN) bench/run.ts $(ARGS)

test: setup-test ## all suites; ARGS="unit uring/hosted" picks some, ARGS="--jobs 2" runs two at a time
	@$(BUN) test/run.ts $(ARGS)

sim: setup-test ## seeds on the simulated kernel; ARGS="--seeds 1..10000" or ARGS="--seed 42 --trace" (test/sim/run.ts)
	@$(BUN) test/sim/run.ts $(ARGS)

soak: setup-test shim ## ten minutes of churn, load and faults; ARGS="--minutes 60 --engine epoll" (test/soak/run.ts)
	@$(BUN) test/soak/run.ts --record $(ARGS)

mutate: setup-test shim ## 100 small wrong changes, each to be noticed; ARGS="--count 100 --seed 1" (test/mutation/run.ts)
	@$(BUN) test/mutation/run.ts --record $(ARGS)

coverage: setup-test ## lines, functions and branches that the tests reach; ARGS=--missed lists the others (test/coverage/run.ts)
	@$(BUN) test/coverage/run.ts $(ARGS)

fuzz: setup-test ## the shim under libFuzzer, SECONDS (60) an engine; what fails is kept in liburing-shim/build/fuzz
	@$(MAKE) --no-print-directory -C liburing-shim fuzz FUZZ_SECONDS=$(SECONDS)

check: setup-test ## format, lint, types, ffi/abi.ts against abi.h, style: all of it, under 30 seconds
	@$(MAKE) --no-print-directory --keep-going --output-sync=target -j2 $(CHECKS)
	@echo "check: all good"

check-biome:
	@$(BIOME) check --error-on-warnings --max-diagnostics=50 .

check-c:
	@$(if $(C_FILES),clang-format --dry-run -Werror --ferror-limit=3 $(C_FILES))

check-types:
	@$(TSC) --project tsconfig.json

check-abi:
	@$(BUN) ffi/generate-abi.ts --check

check-style:
	@$(BUN) test/check/style.ts

format: setup-test ## rewrite what `make check` would complain of, where a tool can
	@$(BIOME) check --write .
	@$(if $(C_FILES),clang-format -i $(C_FILES))

run: shim ## serve examples/plaintext.ts on PORT (3000)
	@PORT=$${PORT:-3000} $(BUN) examples/plaintext.ts

clean: ## remove what was built, and node_modules
	rm -rf liburing-shim/build bench/build node_modules
