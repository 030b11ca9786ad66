/* SPDX-License-Identifier: Apache-2.0 */
#include "names.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#define NAMES 64
#define LENGTH 32

static struct {
	_Atomic bool there; /* set when text is, for good */
	char text[LENGTH];
} names[NAMES] = { { .there = true } };
static _Atomic unsigned count = 1; /* claimed */

uint8_t names_add(const char *name)
{
	char cut[LENGTH] = "";

	for (unsigned i = 0; name && name[i] && i + 1 < LENGTH; i++)
		cut[i] = name[i];
	for (unsigned i = 0; i < NAMES; i++)
		if (names[i].there && !memcmp(names[i].text, cut, LENGTH))
			return (uint8_t)i;
	/* Two threads may add the same twice; each number means the same then. */
	unsigned n = count;
	do {
		if (n == NAMES)
			return 0;
	} while (!atomic_compare_exchange_weak(&count, &n, n + 1));
	memcpy(names[n].text, cut, LENGTH);
	names[n].there = true;
	return (uint8_t)n;
}

const char *names_text(uint8_t n)
{
	return n < NAMES && names[n].there ? names[n].text : "";
}
