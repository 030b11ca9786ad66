/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel touches when a thread ends stays local: it serves no fault of userfaultfd
 * then, and leaves off. A thread's descriptor, at the top of its stack, is where pthread_join
 * waits for the kernel's word; a robust mutex is told there that its owner has died.
 * Stacks that libc allocates are never managed; one of the program's own may be.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

#include "engine.h"
#include "preload.h"
#include "region.h"

static int (*next_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
static int (*next_mutex_init)(pthread_mutex_t *, const pthread_mutexattr_t *);

__attribute__((constructor)) static void find_next(void)
{
	next_create = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
			       void *))dlsym(RTLD_NEXT, "pthread_create");
	next_mutex_init = (int (*)(pthread_mutex_t *, const pthread_mutexattr_t *))dlsym(
	    RTLD_NEXT, "pthread_mutex_init");
}

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg)
{
	void *stack;
	size_t size;

	if (!next_create)
		find_next();
	/* Without a stack of its own it ends at 0. */
	if (attr && !pthread_attr_getstack(attr, &stack, &size) && (uintptr_t)stack + size)
		keep_local(stack, size, KEPT_ALWAYS);
	return next_create ? next_create(thread, attr, fn, arg) : EAGAIN;
}

EXPORT int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr)
{
	int robust;

	if (!next_mutex_init)
		find_next();
	if (attr && !pthread_mutexattr_getrobust(attr, &robust) && robust == PTHREAD_MUTEX_ROBUST)
		keep_local(mutex, sizeof(*mutex), KEPT_ALWAYS);
	return next_mutex_init ? next_mutex_init(mutex, attr) : EAGAIN;
}
