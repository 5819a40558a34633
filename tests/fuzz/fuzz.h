/* fuzz.h: what the targets share. A target is one LLVMFuzzerTestOneInput that aborts where a property does not hold; it is
 * linked with libFuzzer (make fuzz) or with replay.c (make fuzz-replay). Inputs worth keeping are in tests/corpus/TARGET/. */
#ifndef MF_TESTS_FUZZ_H
#define MF_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HOLDS(condition) do { \
	if (!(condition)) { \
		fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
		abort(); \
	} \
} while (0)

#endif
