/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dlopen without RTLD_DEEPBIND. What is loaded by that (PHP's extensions, Julia's libraries) looks
 * symbols up in libc before it looks in what was preloaded, and so would free by libc's free what
 * the program got of our malloc. Any replaced malloc has that to mind; AddressSanitizer refuses
 * such a dlopen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>

#include "preload.h"

/*
 * libc looks at the caller's address for where it may search (RUNPATH, man 3 dlopen), so this has
 * to leave by a jump.
 */
__attribute__((optimize("optimize-sibling-calls"))) EXPORT void *dlopen(const char *file, int flags)
{
	static void *(*_Atomic next)(const char *, int);

	if (!next)
		next = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");
	return next(file, flags & ~RTLD_DEEPBIND);
}
