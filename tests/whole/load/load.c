/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load: loads libmodule.so, which only this program's RUNPATH leads to, with RTLD_DEEPBIND; what
 * one of both allocates the other frees.
 */
#define _GNU_SOURCE
#include "prog.h"

#include <dlfcn.h>

int main(void)
{
	void *module = dlopen("libmodule.so", RTLD_NOW | RTLD_DEEPBIND);

	if (!module)
		die("%s", dlerror());
	void *(*make)(size_t) = (void *(*)(size_t))dlsym(module, "module_make");
	void (*give)(void *) = (void (*)(void *))dlsym(module, "module_free");
	/* Of a size class, of pages, and of a region of its own. */
	for (size_t n = 24; n <= 32ul << 20; n *= 8) {
		char *p[64];
		for (int i = 0; i < 64; i++) {
			p[i] = i % 2 ? make(n) : malloc(n);
			CHECK(p[i], "no %zu bytes", n);
			if (i >= 8 && n > 1ul << 20)
				break;
			p[i][n - 1] = 1;
		}
		for (int i = 0; i < (n > 1ul << 20 ? 9 : 64); i++) {
			if (i % 2)
				free(p[i]);
			else
				give(p[i]);
		}
	}
	puts("loaded");
	return 0;
}
