# What a newcomer types. Every target may be run alone; each brings what it needs.
#
#   make demo    set-up, default image, server, spin, exec, sync, delete, with the time of every step
#   make test    everything that .ci/run tests
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
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: deps deps-bench build image demo test test-rust bench fmt fmt-check clippy tidy clean

## Debian packages: what building, the default image and the tests need. Silent when nothing is missing.
deps:
	@scripts/deps build test

deps-bench:
	@scripts/deps build bench

build: deps
	$(CARGO) build --profile $(PROFILE) -p infield -p specgen-sandbox

## The default sandbox image, from Debian packages.
image: build
	@scripts/image "$(IMAGES)" target/$(PROFILE_DIR)/infield

demo: build
	@scripts/demo target/$(PROFILE_DIR)

test: build image
	@scripts/test

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
