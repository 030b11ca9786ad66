/* SPDX-License-Identifier: Apache-2.0 */
/* Allocates and frees for who has loaded it. */
#include <stdlib.h>
#include <string.h>

void *module_make(size_t n);
void module_free(void *p);

void *module_make(size_t n)
{
	void *p = malloc(n);

	return p ? memset(p, 1, n) : NULL;
}

void module_free(void *p)
{
	free(p);
}
