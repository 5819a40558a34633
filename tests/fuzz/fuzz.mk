# Fuzzing: make fuzz-replay runs every target over its corpus (any compiler, any SAN=); make fuzz FUZZ_SECONDS=180 looks for
# more with clang's libFuzzer, one target after the other, and leaves what it finds in build/fuzz/TARGET/.
# A target is tests/fuzz/fuzz_NAME.c with its corpus in tests/corpus/NAME/.

FUZZ_SECONDS ?= 60
FUZZ_CLANG ?= clang
FUZZ_NAMES ?= $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SAN := fuzzer-no-link,address,undefined
FUZZ_LIB := build/san-$(subst $(COMMA),-,$(FUZZ_SAN))/libmailfs.a

.PHONY: fuzz fuzz-replay $(FUZZ_NAMES:%=fuzz-replay-%) $(FUZZ_NAMES:%=fuzz-%)

$(B)/tests/fuzz/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c tests/fuzz/fuzz.h $(B)/libmailfs.a
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(CPPFLAGS) -Itests $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $< tests/fuzz/replay.c $(B)/libmailfs.a $(PKG_LIBS)
fuzz-replay: $(FUZZ_NAMES:%=fuzz-replay-%)
$(FUZZ_NAMES:%=fuzz-replay-%): fuzz-replay-%: $(B)/tests/fuzz/fuzz_%
	@timeout 300 $< tests/corpus/$* 2>$<.log || { cat $<.log >&2; exit 1; }

.PHONY: fuzz-lib
fuzz-lib:
	+@$(MAKE) -s --no-print-directory SAN=$(FUZZ_SAN) CC=$(FUZZ_CLANG) $(FUZZ_LIB)
build/fuzz/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/fuzz.h fuzz-lib
	@mkdir -p $(@D)
	$(call say,LD)$(FUZZ_CLANG) $(CPPFLAGS) -Itests -std=gnu17 -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=all -pthread $(PKG_CFLAGS) -o $@ $< $(FUZZ_LIB) $(PKG_LIBS)
fuzz:
	@set -e; for name in $(FUZZ_NAMES); do $(MAKE) --no-print-directory fuzz-$$name; done
$(FUZZ_NAMES:%=fuzz-%): fuzz-%: build/fuzz/fuzz_%
	@mkdir -p build/fuzz/$*/found
	$< -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=512 -max_len=8192 -artifact_prefix=build/fuzz/$*/ \
		-print_final_stats=1 build/fuzz/$*/found tests/corpus/$*
