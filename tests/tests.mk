# Tests, measurements, the demonstration. All of it is run by prove: one line per file, what failed at the end.
#
#   make check                      everything within 20 minutes      T=tests/e2e/read.t  a part of the end-to-end tests
#   make check-all SEED=N           without bounds                    CASE=words          only cases with these words
#   make bench ROWS=ls-cold,...     measurements                      JOBS=N              at once

PYTHON ?= /usr/bin/python3
# tests wait more than they work
JOBS ?= $(shell expr $$(nproc) + 1)
T ?= $(sort $(wildcard tests/e2e/*.t))
RULES := $(sort $(wildcard tests/rules/*.sh))
FUZZ_TESTS := $(patsubst tests/fuzz/%.c,$(B)/tests/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
SHORT := $(addprefix tests/e2e/,hostile.t faults.t read.t)
TOOLS := $(B)/tools/proxy $(B)/tools/ends.so $(B)/tools/floor $(B)/tools/walk

PROVE = PYTHON=$(PYTHON) MAILFS=$(CURDIR)/$(B)/mailfs MAILFS_TOOLS=$(CURDIR)/$(B)/tools prove --timer -j $(JOBS) -e tests/tools/tap
AGAIN = $(MAKE) -s --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j $(JOBS))
ifdef SAN
export ASAN_OPTIONS := suppressions=$(CURDIR)/tests/asan.supp:detect_leaks=1:abort_on_error=0:exitcode=99:allocator_may_return_null=1:$(ASAN_OPTIONS)
export UBSAN_OPTIONS := print_stacktrace=1:halt_on_error=1:$(UBSAN_OPTIONS)
export TSAN_OPTIONS := die_after_fork=0:halt_on_error=1:exitcode=99:second_deadlock_stack=1:$(TSAN_OPTIONS)
export LSAN_OPTIONS := suppressions=$(CURDIR)/tests/lsan.supp:print_suppressions=0:$(LSAN_OPTIONS)
export MAILFS_TEST_SLOW ?= 4
export MAILFS_TEST_SHORT ?= 1
endif

.PHONY: deps check check-all check-rules check-plain check-asan check-tsan programs prove e2e bench demo

-include tests/fuzz/fuzz.mk

deps:
	@tests/tools/deps build check

# Every part is a make of its own, so that packages that deps installed are seen, and builds of several variants keep apart.
check: deps
	+@$(AGAIN) parts PARTS="rules plain asan tsan"
check-all: deps
	@echo "seed $(or $(SEED),of each file: see its first line)"
	+@MAILFS_TEST_LONG=1 MAILFS_TEST_LIMIT=7200 $(AGAIN) parts PARTS="rules plain asan tsan"

# runs every part even when one fails, then says which, and once more why
.PHONY: parts
parts: export MAILFS_TEST_FAILED := $(CURDIR)/build/failed
parts:
	+@mkdir -p build; rm -f $$MAILFS_TEST_FAILED; \
	failed=; for part in $(PARTS); do echo "== $$part"; $(AGAIN) check-$$part || failed="$$failed $$part"; done; \
	if [ -n "$$failed" ]; then [ ! -e $$MAILFS_TEST_FAILED ] || tail -n 200 $$MAILFS_TEST_FAILED; echo "FAILED:$$failed"; exit 1; fi; echo "all parts passed: $(PARTS)"

check-rules:
	@$(PROVE) $(RULES)
# what takes longest begins first
check-plain:
	+@$(AGAIN) all programs
	+@$(AGAIN) prove TESTS='$$(T) $$(UNIT_TESTS) $$(CONTRACT_TESTS)'
check-asan:
	+@$(AGAIN) SAN=address,undefined programs
	+@$(AGAIN) SAN=address,undefined prove TESTS='$$(SHORT) $$(UNIT_TESTS) $$(CONTRACT_TESTS) $$(FUZZ_TESTS)'
check-tsan:
	+@$(AGAIN) SAN=thread CC=clang programs
	+@$(AGAIN) SAN=thread CC=clang prove TESTS='$$(UNIT_TESTS) $$(CONTRACT_TESTS)'
programs: $(B)/mailfs $(UNIT_TESTS) $(CONTRACT_TESTS) $(FUZZ_TESTS) $(TOOLS)
prove:
	@$(PROVE) $(TESTS)
e2e: $(B)/mailfs $(CONTRACT_TESTS) $(TOOLS)
	@$(PROVE) $(T)

$(B)/tools/%.so: tests/tools/%.c
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(CPPFLAGS) $(CFLAGS_ALL) -fvisibility=default -fPIC -shared -o $@ $<
$(B)/tools/%: tests/tools/%.c
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(CPPFLAGS) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $< -lssl -lcrypto
$(B)/tools/%: tests/bench/%.c
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(CPPFLAGS) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $< -lssl -lcrypto

bench:
	@tests/tools/deps build bench
	+@$(AGAIN) all $(TOOLS)
	@MAILFS=$(CURDIR)/build/mailfs MAILFS_TOOLS=$(CURDIR)/$(B)/tools $(PYTHON) -B tests/bench/bench.py $(ROWS)

demo:
	@tests/tools/deps build demo
	+@$(AGAIN) all
	@MAILFS=$(CURDIR)/build/mailfs exec $(PYTHON) -B tests/tools/demo
