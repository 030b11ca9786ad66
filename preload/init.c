/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start and end of the preloaded library, and fork. Every child of a shell inherits the
 * preload, so what happens here is read once from the environment and no more.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine.h"
#include "env.h"
#include "fork.h"
#include "kernel.h"
#include "log.h"
#include "preload.h"
#include "sigfault.h"
#include "stats.h"
#include "trap.h"

/* jemalloc's own mappings, which the build routes here: never managed. */
void *emf_je_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
int emf_je_munmap(void *addr, size_t len);
int emf_je_madvise(void *addr, size_t len, int advice);

void *emf_je_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	long r = k_mmap(addr, len, prot, flags, fd, off);

	return r < 0 ? MAP_FAILED : (void *)r;
}

int emf_je_munmap(void *addr, size_t len)
{
	return k_munmap(addr, len) ? -1 : 0;
}

int emf_je_madvise(void *addr, size_t len, int advice)
{
	return k_madvise(addr, len, advice) ? -1 : 0;
}

void before_fork(bool own_descriptors)
{
	dma_before_fork();
	fork_prepare(own_descriptors);
}

void after_fork_parent(void)
{
	fork_parent();
	dma_after_fork_parent();
}

void after_fork_child(void)
{
	trap_after_fork();
	fork_child();
	mman_after_fork_child();
	dma_after_fork_child();
	heap_fork_child();
	fork_go_on();
}

static void prepare(void)
{
	/* Else the allocator's handlers have taken its locks by now, which the start needs. */
	if (!engine.own_malloc)
		engine_await_start();
	before_fork(true);
}

/*
 * The child's handlers run in the order in which they were registered, and those of a library
 * whose constructor ran before ours may touch memory that is far. So ours come before
 * any other's, but jemalloc's: its first allocation registers those, and ours must run
 * while its locks are free. Every pthread_atfork ends here (it is in each object, statically).
 */
typedef int register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void),
			    void *object);
register_atfork __register_atfork;
extern void *__dso_handle;

static bool register_handlers(void)
{
	static bool begun, done;

	if (begun)
		return done;
	begun = true;
	je_free(je_malloc(1));
	register_atfork *next = (register_atfork *)dlsym(RTLD_NEXT, "__register_atfork");
	done = next && !next(prepare, after_fork_parent, after_fork_child, &__dso_handle);
	return done;
}

/*
 * Before all handlers of a fork, and in the child behind all: where the allocator's locks are
 * free. For that these are registered again behind each that comes later; in the child only the
 * last one counts.
 */
static unsigned handlers_behind;

static void behind_all(void)
{
	static unsigned run;

	if (++run < handlers_behind)
		return;
	run = 0;
	engine_prepare_start();
}

static void register_behind(register_atfork *next)
{
	if (!next(engine_await_start, NULL, behind_all, &__dso_handle))
		handlers_behind++;
}

EXPORT int __register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void),
			     void *object)
{
	register_atfork *next = (register_atfork *)dlsym(RTLD_NEXT, "__register_atfork");

	if (object != &__dso_handle) /* jemalloc's are of this object */
		register_handlers();
	if (!next)
		return ENOSYS;
	int err = next(before, parent, child, object);
	if (handlers_behind)
		register_behind(next);
	return err;
}

/* Faults by signal, where that can be had whole. */
static void by_signal(void)
{
	const char *why = NULL;
	int err = 0;

	if (!engine.config.move)
		why = "needs engine.move";
	else if (engine.config.in_place)
		why = "not with store.in_place";
	else if (k_threads() != 1)
		why = "threads run already, whose system calls are not seen";
	else if ((err = sigfault_open(true)))
		why = "userfaultfd by signal is not to be had";
	else if ((err = trap_start()))
		why = "the kernel can't dispatch system calls (5.11, x86-64)";
	if (!why)
		return;
	sigfault_close();
	/* Then none is to be had in any way, and the start says so. */
	if (err == -EPERM)
		return;
	log_warn("engine.fault=signal: %s (error %d); faults are resolved by a thread", why, -err);
}

__attribute__((constructor)) static void start(void)
{
	env_keep();
	const char *disable = env_get("EMFATIER_DISABLE");

	if (!log_open(env_get("EMFATIER_LOG")))
		log_error("EMFATIER_LOG: not error, warn, info or debug, with :FILE behind it");
	if (disable && *disable && strcmp(disable, "0"))
		return;
	if (!engine_init())
		return;
	if (!register_handlers()) {
		log_error("the handlers of fork cannot be registered; running unmanaged");
		return;
	}
	if (engine.config.signal)
		by_signal();
	if (!malloc_is_ours()) {
		/* It is managed by what it maps. */
		engine.own_malloc = true;
		managed_min = engine.config.min_region;
		register_behind((register_atfork *)dlsym(RTLD_NEXT, "__register_atfork"));
		engine_prepare_start();
		return;
	}
	if (engine.config.heap == EMF_HEAP_ALL && !heap_start())
		log_error("engine.heap=all: not with this libc; small objects stay local");
	managed_heap = engine.config.heap != EMF_HEAP_OFF;
	managed_min = engine.config.min_region;
}

__attribute__((destructor)) static void end(void)
{
	stats_remove();
}
