# What a newcomer types. Every target may be run alone; each brings what it needs.
#
#   make demo    set-up, default image, server, spin, exec, sync, delete, with the time of every step
#   make test    everything that .ci/run tests
#   make test-vm the built programs on other kernels, in virtual machines (docs/platforms.md); long without KVM
#   make bench   Infield beside runc, crun, bubblewrap and docker, in one run (release build)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

CARGO ?= cargo
PROFILE ?= dev
PROFILE_DIR := $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
# The default image of tests, demo and bench; made once.
IMAGES ?= $(CURDIR)/target/infield-images
# Building needs no root, sandboxes do.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: deps deps-build deps-demo deps-vm deps-bench build image demo test test-vm bench fmt fmt-check clippy tidy clean

## Debian packages: what building, the default image and the tests need. Silent when nothing is missing.
deps:
	@scripts/deps build test

deps-build:
	@scripts/deps build

deps-demo:
	@scripts/deps build demo

deps-vm:
	@scripts/deps build vm

deps-bench:
	@scripts/deps build bench

build: deps-build
	$(CARGO) build --profile $(PROFILE) -p infield -p specgen-sandbox

## The default sandbox image, from Debian packages.
image: build
	@$(SUDO) scripts/image "$(IMAGES)" target/$(PROFILE_DIR)/infield

demo: deps-demo build
	@$(SUDO) env IMAGES="$(IMAGES)" INFIELD_DEMO_DIR="$(INFIELD_DEMO_DIR)" INFIELD_DEMO_PORT="$(INFIELD_DEMO_PORT)" \
		INFIELD_DEMO_SUBNET="$(INFIELD_DEMO_SUBNET)" scripts/demo target/$(PROFILE_DIR)

test: deps build image
	@scripts/test

## CASES="bookworm-v2 trixie-v2" for some of the cases only.
test-vm: deps-vm image
	@$(SUDO) env IMAGES="$(IMAGES)" scripts/vm target/$(PROFILE_DIR) $(CASES)

bench: PROFILE := release
bench: deps-bench
	@$(MAKE) --no-print-directory image PROFILE=release
	@scripts/bench-peers target/release

fmt:
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all -- --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

tidy:
	@$(CARGO) run --quiet -p xtask -- tidy
	@$(CARGO) test --quiet -p xtask --test compatibility

clean:
	rm -rf target/demo target/bench
