/* SPDX-License-Identifier: Apache-2.0 */
#include "names.h"

#include <string.h>

#define NAMES 64
#define LENGTH 32

static char names[NAMES][LENGTH]; /* the first is "" */
static unsigned count = 1;

uint8_t names_add(const char *name)
{
	char cut[LENGTH] = "";

	for (unsigned i = 0; name && name[i] && i + 1 < LENGTH; i++)
		cut[i] = name[i];
	for (unsigned i = 0; i < count; i++)
		if (!memcmp(names[i], cut, LENGTH))
			return (uint8_t)i;
	if (count == NAMES)
		return 0;
	memcpy(names[count], cut, LENGTH);
	return (uint8_t)count++;
}

const char *names_text(uint8_t n)
{
	return names[n < count ? n : 0];
}
