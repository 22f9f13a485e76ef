# Every command a contributor or CI needs. `make` alone says what there is.

SWIFT   ?= swift
PREFIX  ?= /usr/local
DESTDIR ?=
# Seconds each fuzz target runs under `make fuzz`.
SECONDS_EACH ?= 600
# Rule files for `make bench-engine`.
RULES ?= $(wildcard ../shared/data/et-open/*.rules ../shared/data/crowdsec-hub/rules/*.yaml)
# How often `make soak` kills Fother in each kind of target, for each way to install sites.
ROUNDS ?= 2000

FOTHER = .build/release/fother

.PHONY: help setup build run test check fuzz bench bench-apply bench-build bench-engine survey pairs conformance soak prove-rules install clean

help:
	@echo "make run      set up, build, and watch a running service being patched (needs root)"
	@echo "make build    $(FOTHER), release, Swift runtime linked in"
	@echo "make test     everything; the parts that need root say so and are skipped without it"
	@echo "make check    format, debug build, fast tests"
	@echo "make fuzz     every parser of outside bytes, SECONDS_EACH=$(SECONDS_EACH) per target"
	@echo "make bench-apply  what patching costs the patched: pauses, 1,000 processes, calls; make bench is the same (needs root)"
	@echo "make soak     redis and nginx patched under load, SECONDS_EACH=$(SECONDS_EACH) each; ROUNDS=$(ROUNDS) kills (needs root)"
	@echo "make bench-build  time and memory of deriving patches, over the package pairs in PAIRS; FETCH=yes fetches them"
	@echo "make survey   the corpus of real fixes: built, derived, applied, shown; ONLY=quick, LIMIT=SECONDS (needs root)"
	@echo "make pairs    the corpus of real updates: what each package's two versions give, rates, and the codes that refuse; LIMIT=SECONDS"
	@echo "make bench-engine  what judging a request and a body costs, with the rules in RULES"
	@echo "make conformance   the public conformance tests, per family, where they are beside the package"
	@echo "make prove-rules   own rules against the vulnerable servers, built with the fix taken out, on loopback; CVES=… for some"
	@echo "make install  to $(DESTDIR)$(PREFIX)"

setup:
	@scripts/setup

build: setup
	$(SWIFT) build -c release --static-swift-stdlib --product fother

run: build
	$(FOTHER) demo

test: setup
	$(SWIFT) test

check: setup
	$(SWIFT) format lint --strict --parallel --recursive Package.swift Sources Tests Fuzz Benchmarks
	$(SWIFT) build --build-tests
	$(SWIFT) test --skip-build --skip SystemTests --skip CorpusTests --skip InterceptionTests --skip LivePatchApplierTests --skip ProgramTests

fuzz: setup
	scripts/fuzz $(SECONDS_EACH)

bench bench-apply: build
	scripts/bench-apply

bench-build: setup
	$(SWIFT) build -c release --product bench-build
	scripts/bench-build

survey: build
	scripts/survey

pairs: build
	scripts/pairs

soak: build
	$(SWIFT) build -c release --static-swift-stdlib --product soak-transitions
	ROUNDS=$(ROUNDS) scripts/soak $(SECONDS_EACH)

bench-engine: setup
	$(SWIFT) build -c release --product bench-engine
	.build/release/bench-engine $(RULES)

conformance: setup
	scripts/conformance

prove-rules: setup
	scripts/prove-rules $(CVES)

install: build
	install -D -s -m 0755 $(FOTHER) $(DESTDIR)$(PREFIX)/bin/fother
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/fother/demo Fixtures/demo/*
	cd Rules && find . -type f -exec install -D -m 0644 '{}' '$(abspath $(DESTDIR)$(PREFIX))/share/fother/rules/{}' ';'

clean:
	rm -rf .build
