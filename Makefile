# Every target does its own set-up, prints what it does, and caches slow results in ${XDG_CACHE_HOME:-~/.cache}/casemate.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build guest-programs image reproducible demo registry-demo test test-all story bench snp-test fuzz check install shell conformance fuzz-api clean-cache

PROGRAMS := target/x86_64-unknown-linux-gnu/release
# GUEST_PROFILE=release: the programs inside the VM build faster and are larger, for work on them
GUEST_PROFILE ?= guest
GUEST_PROGRAMS := target/x86_64-unknown-linux-gnu/$(GUEST_PROFILE)
STAGE0 := target/stage0
# Paths in the guest's programs (generated sources, panics) do not depend on the directory or the user that built them, so that anyone
# gets the same bytes and the same launch digest.
PATHS := --config 'target.x86_64-unknown-linux-gnu.rustflags = ["--remap-path-prefix=$(CURDIR)=/casemate", "--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo"]'
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/casemate
GUEST := $(CACHE)/guest
KERNEL ?= source
export KERNEL

help:
	@echo 'make demo      a real container in a policy-guarded microVM, through stock containerd (TEE=simulated: and its report, verified; POD=1: a pod of two with a published port)'
	@echo 'make registry-demo  protected repositories: Debian'\''s registry, its token service, who may push and who is refused'
	@echo 'make test      unit tests, properties, conformance, stories in the testbed (short enough for every commit)'
	@echo 'make test-all  the same with every round of every fault'
	@echo 'make bench     boot, run, exec, streams, block reads, memory, compared with QEMU, runc and others'
	@echo 'make reproducible  builds the guest image from another directory, and compares every byte'
	@echo 'make snp-test  stories with SEV-SNP guests on this host itself (needs the hardware and `make install`)'
	@echo 'make shell     a prompt in the testbed with this build installed'
	@echo 'make story     one story (NAME=denied-exec SUITE=bookworm SET=short); `testbed stories` lists them'
	@echo 'make check     formatting, lints, documentation, architecture, licences, unused dependencies'
	@echo 'make fuzz      VMM, policy engine, guest agent and layers with hostile input (TARGET=vsock SECONDS=600; default: every target for a minute)'
	@echo 'make fuzz-api  the token service with requests that schemathesis makes of its OpenAPI description'
	@echo 'make image     the guest image (KERNEL=debian: packaged kernel, no compiler needed)'
	@echo 'make install   programs to /usr/local/bin, guest image to /usr/local/share/casemate'

# Programs that tests compare with. Tests read the variables.
PEERS := $(CACHE)/peers
export CASEMATE_SEV_SNP_MEASURE_PYTHON ?= $(PEERS)/bin/python3
export CASEMATE_GUEST_IMAGE ?= $(GUEST)
export CASEMATE_GUEST_PROGRAMS ?= $(CURDIR)/$(GUEST_PROGRAMS)
export CASEMATE_STAGE0 ?= $(CURDIR)/$(STAGE0)

setup:
	@integration/setup.sh
	@integration/peers.sh $(PEERS)

build: setup
	@echo '==> building the programs'
	cargo build --release --workspace
	@$(MAKE) --no-print-directory guest-programs

# What the guest image consists of besides its kernel.
guest-programs:
	cargo build --profile $(GUEST_PROFILE) $(PATHS) -p casemate-agent -p casemate-launcher -p casemate-puller
	image/guest/stage0/build.sh $(STAGE0)
	guest-agent/pause/build.sh $(GUEST_PROGRAMS)/casemate-pause

image: build
	$(PROGRAMS)/casemate image build --programs $(GUEST_PROGRAMS) --stage0 $(STAGE0) --output $(GUEST)

demo: image
	$(PROGRAMS)/testbed demo $(if $(TEE),--tee $(TEE)) $(if $(POD),--pod)

registry-demo: setup
	cargo build --release -p casemate -p integration
	$(PROGRAMS)/testbed registry-demo

test: image
	$(PROGRAMS)/testbed test

test-all: image
	$(PROGRAMS)/testbed test-all

# NAME=a story of `testbed stories`; SET=full for one that only test-all runs, SEED= to repeat one with random choices
SUITE ?= bookworm
SET ?= short
story: image
	$(if $(NAME),,$(error make story needs NAME=, such as NAME=denied-exec))
	$(PROGRAMS)/testbed run --suite $(SUITE) --set $(SET) $(if $(SEED),--seed $(SEED)) $(NAME)

bench: image
	$(PROGRAMS)/testbed bench

# The guest's programs once more, from a copy of this directory at another place, and the image from them: the same bytes.
reproducible: image
	@integration/reproducible.sh $(PROGRAMS)/casemate $(GUEST_PROGRAMS) $(STAGE0) $(GUEST)

# On a host with SEV-SNP, as root, with the programs installed: `make install snp-test`. Ends with code 77 where the host check finds
# something missing, before anything is started.
snp-test: build
	@$(PROGRAMS)/testbed snp-test

shell: image
	@$(PROGRAMS)/testbed shell

check: setup
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo clippy --profile guest -p stage0 --features program --target x86_64-unknown-none -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --release --workspace --no-deps --quiet
	cargo test --release --quiet --workspace --test architecture --test circles
	@integration/dependencies.sh

# TARGET=a file of a fuzz/targets directory (all), SECONDS=60 for each
fuzz: setup
	@integration/fuzz.sh "$(TARGET)" "$(SECONDS)"

# EXAMPLES=60 requests for each operation of the token service's description and each kind
fuzz-api: setup
	cargo build --release -p casemate
	@integration/fuzz-api.sh $(PROGRAMS)/casemate $(EXAMPLES)

PREFIX ?= /usr/local
install: image
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/casemate
	install -s -m 755 $(addprefix $(PROGRAMS)/,containerd-shim-casemate-v2 casemate-vmm casemate-converter casemate) $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(addprefix $(GUEST)/,vmlinux initramfs.cpio stage0 manifest.json) $(DESTDIR)$(PREFIX)/share/casemate/

# By default the vectors in this repository.
LAYER_VECTORS = $(or $(CASEMATE_LAYER_VECTORS),image/layer/vectors/layers.json)
LAUNCH_VECTORS = $(or $(CASEMATE_LAUNCH_VECTORS),vmm/measure/conformance/vectors/launch.json)
POLICY_VECTORS = $(or $(CASEMATE_POLICY_VECTORS),$(firstword $(wildcard policy/conformance/vectors/policy.jsonl.zst)))
REGISTRY_VECTORS = $(or $(CASEMATE_REGISTRY_VECTORS),image/registry/vectors/registry.json)
conformance: build
	$(PROGRAMS)/casemate conformance layers $(LAYER_VECTORS)
	$(PROGRAMS)/casemate conformance launch $(LAUNCH_VECTORS)
	$(PROGRAMS)/casemate conformance policy $(POLICY_VECTORS)
	$(PROGRAMS)/casemate conformance registry $(REGISTRY_VECTORS)

clean-cache:
	rm -rf $(CACHE)
