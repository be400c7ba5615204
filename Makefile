# Holdfast's front door. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export XDG_CACHE_HOME ?= $(HOME)/.cache
TOOLS := $(XDG_CACHE_HOME)/holdfast
export PATH := $(HOME)/.cargo/bin:$(TOOLS)/zig/bin:$(TOOLS)/tools/bin:/usr/local/go/bin:$(PATH)
# CI builds once: incremental state would only cost time.
ifdef CI
export CARGO_INCREMENTAL := 0
endif
NODE := target/release/node

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing (Debian packages, Rust, cargo-zigbuild)
	@scripts/setup

build: setup ## the holdfast command, and what runs on a node
	@$(MAKE) --no-print-directory cli node

# With all packages at once each crate is compiled once for commands and tests.
all: setup
	cargo build --release --locked --workspace
	@$(MAKE) --no-print-directory node

cli: ## target/release/holdfast
	cargo build --release --locked -p holdfast-cli

node: node-x86_64 node-aarch64 ## init, agent (static) and the loader for both architectures, into target/release/node

node-%: ## (one architecture)
	cargo zigbuild --profile node --locked --target $*-unknown-linux-musl -p holdfast-init -p holdfast-agent
	cargo build --profile node --locked --target $*-unknown-uefi -p holdfast-boot
	mkdir -p $(NODE)/$*
	cp -u target/$*-unknown-linux-musl/node/holdfast-init target/$*-unknown-linux-musl/node/holdfast-agent $(NODE)/$*/
	cp -u target/$*-unknown-uefi/node/holdfast-boot.efi $(NODE)/$*/

demo: setup cli node-x86_64 ## the whole way of a node, with its times
	@scripts/demo

test: all ## every test, the ones in virtual machines included
	@scripts/test

test-nat: setup ## which path two members find behind each pair of NATs, as a table (root)
	@HOLDFAST_ROOT_TESTS=1 cargo test --release --locked --quiet -p holdfast-lighthouse --test nat -- --nocapture

test-long: all ## the slower stories
	@scripts/test --long

SAMPLE ?= 100
test-power: all ## every power cut of a recorded life of a node; SAMPLE (100) of them booted
	@mkdir -p target/stories
	@HOLDFAST_POWER_SAMPLE=$(SAMPLE) cargo test --release --locked --workspace --test power_cuts --quiet -- --nocapture

SECONDS ?= 600
PEERS ?= 1000
soak: setup ## a node with PEERS active peers (1000) for SECONDS (600): nothing grows (root)
	@HOLDFAST_SOAK=$(SECONDS) HOLDFAST_SOAK_PEERS=$(PEERS) cargo test --release --locked --quiet -p holdfast-mesh --test soak

TIME ?= 60
fuzz: setup ## every fuzz target for TIME seconds (60)
	@fuzz/run $(TIME)

check: setup ## formatting, lints, licences
	@scripts/check

bench-image: build ## build times and sizes, beside mkosi
	@scripts/bench-image

bench-boards: build ## sizes, builds and boots of every board, and flashing
	@scripts/bench-boards

bench-boot: build ## boot times, beside mkosi's Debian and a bare Kubernetes machine
	@scripts/bench-boot

bench-mesh: setup ## the data plane, beside wireguard-go, nebula and boringtun-cli
	@scripts/bench-mesh

bench-lighthouse: setup ## a lighthouse on one core with 10,000 simulated nodes
	@scripts/bench-lighthouse

# Recipe by recipe for each board whose programs are built; k3s itself is not downloaded for it.
SIZES ?= base wifi
sizes: build ## docs/sizes.md: what takes how much, board by board
	rm -rf target/sizes && mkdir -p target/sizes/reports
	export HOLDFAST_PASSPHRASE=sizes; \
	target/release/holdfast cluster new sizes --dir target/sizes/cluster --lighthouse 127.0.0.1 >/dev/null; \
	for board in boards/*.toml; do for recipe in $(SIZES); do \
	  name=$$(basename $$board .toml); \
	  target/release/holdfast --cluster target/sizes/cluster build --board $$name --recipe $$recipe --version sizes \
	    --formats bundle --relock when-gone --output-dir target/sizes --report target/sizes/reports/$$name-$$recipe.json; \
	done; done
	scripts/sizes target/sizes/reports/*.json > docs/sizes.md

conformance: setup ## k3s's contract, checked against K3S=PATH (default: the stand-in)
	@$(MAKE) --no-print-directory -C kube conformance $(if $(K3S),K3S=$(abspath $(K3S)))

.PHONY: help setup build all cli node demo fuzz soak test test-long test-power check bench-image bench-boards bench-boot bench-mesh bench-lighthouse sizes conformance
