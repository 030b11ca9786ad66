/* SPDX-License-Identifier: Apache-2.0 */
/* What fuzz targets share: an input that is read byte by byte, and what must hold. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MUST(what)                                                                                 \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "does not hold: %s (line %d)\n", #what, __LINE__);         \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static const uint8_t *input;
static size_t left;

/* 0 when there is no more. */
static unsigned next(void)
{
	if (!left)
		return 0;
	left--;
	return *input++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
