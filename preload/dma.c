/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that something else than the CPU reads and writes: registered with a device, or on its
 * way out of a socket without a copy. It is pulled local and let go of before.
 *
 * Where the kernel moves pages (UFFDIO_MOVE), it refuses those that a driver has pinned, so what
 * is registered past these functions stays right, too; they spare the attempts. Where pages are
 * copied, they are the only protection.
 *
 * A program that finds, say, cudaHostRegister takes it for a sign of CUDA, and here it would
 * always find it: by dlsym(RTLD_DEFAULT, ...), or by a weak reference. So these are exported
 * under the version that the real library gives them, and as a hidden, non-default one. The
 * dynamic linker gives them only to who was linked against that library, and so needs it
 * anyway; an unversioned look-up, as the two above, passes by. For that, none may be the first
 * version of preload/exports.map: that one counts as a base version, which the linker does give
 * to unversioned references. What is not caught in return: symbols looked up by dlsym, in
 * static copies, and the CUDA driver's (libcuda.so.1 has no versions).
 *
 * The real function is where the dynamic linker would have found it: in the global scope
 * behind us, else in that of the caller, which may be a module opened with RTLD_LOCAL (most
 * modules of Python). Nothing is loaded, and nothing remembered.
 *
 * What is unregistered may leave again where nothing else has the same pages registered. What was
 * sent with MSG_ZEROCOPY stays local until it is freed: the network holds the pages by a reference
 * that MOVE does not see, until the peer has acknowledged them, and the notice of that is the
 * program's to read.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine.h"
#include "kernel.h"
#include "lock.h"
#include "preload.h"
#include "region.h"

#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif

/* --- what is registered --- */

enum owner { BY_CALL, BY_VERBS, BY_CUDA, BY_HIP, BY_RING, BY_RING_FD };

/* What a registration is undone by; while a call is under way, that call. */
struct key {
	enum owner by;
	uintptr_t is;
};

struct registration {
	uintptr_t start, end; /* whole pages; end 0: a free entry */
	struct key key;
};

/* More than these stay local until they are freed. */
#define MAX_REGISTRATIONS 4096

static struct registration *table; /* mapped at the first use */
static unsigned top;		   /* entries in use are below it */
static _Atomic unsigned live;
static struct lock table_lock = LOCK_INIT(RANK_DMA);

static _Atomic pid_t forking;

static bool is_forking(void)
{
	return atomic_load(&forking) && atomic_load(&forking) == (pid_t)syscall(SYS_gettid);
}

static uint64_t table_take(void)
{
	uint64_t saved;

	k_signals_block(&saved);
	if (!is_forking())
		lock_take(&table_lock);
	return saved;
}

static void table_give(uint64_t saved)
{
	if (!is_forking())
		lock_give(&table_lock);
	k_signals_restore(saved);
}

/*
 * Held over a fork, from before the engine's part: who waits for the engine with the lock held
 * would wait for the end of the fork, and a handler of the program's that frees memory for the
 * lock.
 */
void dma_before_fork(void)
{
	uint64_t saved = table_take();

	forking = (pid_t)syscall(SYS_gettid);
	k_signals_restore(saved);
}

void dma_after_fork_parent(void)
{
	uint64_t saved;

	k_signals_block(&saved);
	forking = 0;
	table_give(saved);
}

/* The device is not the child's. */
void dma_after_fork_child(void)
{
	forking = 0;
	lock_reset(&table_lock);
	top = live = 0;
}

static bool table_ready(void)
{
	if (!table)
		table = k_map(MAX_REGISTRATIONS * sizeof(*table));
	return table;
}

static bool whole_pages(const void *addr, size_t len, uintptr_t *start, uintptr_t *end)
{
	if (!len || len > PTRDIFF_MAX || (uintptr_t)addr > PTRDIFF_MAX)
		return false;
	*start = (uintptr_t)addr & ~(uintptr_t)(K_PAGE - 1);
	*end = ((uintptr_t)addr + len + K_PAGE - 1) & ~(uintptr_t)(K_PAGE - 1);
	return true;
}

static struct key key_of_call(void)
{
	static _Atomic uintptr_t calls = 1;

	return (struct key){ BY_CALL, atomic_fetch_add(&calls, 1) };
}

/* A free entry, or NULL: there are too many. */
static struct registration *new_entry(void)
{
	unsigned i = 0;

	if (!table_ready())
		return NULL;
	while (i < top && table[i].end)
		i++;
	if (i == MAX_REGISTRATIONS)
		return NULL;
	if (i == top)
		top++;
	return table + i;
}

/* It is about to be registered by this call. */
static void hold(const void *addr, size_t len, struct key call)
{
	uintptr_t start, end;

	if (engine_thread || !whole_pages(addr, len, &start, &end) ||
	    !region_near(start, end - start))
		return;
	uint64_t saved = table_take();
	struct registration *r = new_entry();
	if (r) {
		*r = (struct registration){ start, end, call };
		atomic_fetch_add(&live, 1);
	}
	table_give(saved);
	/* After it is in the table, so that who lets go of the same pages knows. */
	engine_keep((void *)start, end - start, r ? KEPT_DEVICE : KEPT_ALWAYS);
}

/* Where the first registration that holds `at` ends, else at; *next: where the next begins. */
static uintptr_t covered(uintptr_t at, uintptr_t *next)
{
	for (unsigned i = 0; i < top; i++) {
		const struct registration *r = table + i;
		if (r->start <= at && at < r->end)
			return r->end;
		if (r->end && r->start > at && r->start < *next)
			*next = r->start;
	}
	return at;
}

static void let_go(struct registration *r)
{
	struct registration was = *r;

	r->end = 0;
	while (top && !table[top - 1].end)
		top--;
	atomic_fetch_sub(&live, 1);
	/* What nobody else has registered. */
	for (uintptr_t at = was.start; at < was.end;) {
		uintptr_t next = was.end, to = covered(at, &next);
		if (to == at) {
			engine_unkeep((void *)at, next - at, KEPT_DEVICE);
			to = next;
		}
		at = to;
	}
}

static bool is(struct key a, struct key b)
{
	return a.by == b.by && a.is == b.is;
}

/* The registrations of `from` get another key; to BY_CALL 0: they are no more. */
static void hand_over(struct key from, struct key to)
{
	if (!atomic_load(&live))
		return;
	uint64_t saved = table_take();
	for (unsigned i = 0; i < top; i++) {
		if (!table[i].end || !is(table[i].key, from))
			continue;
		if (to.by == BY_CALL && !to.is)
			let_go(table + i);
		else
			table[i].key = to;
	}
	table_give(saved);
}

static void drop(struct key k)
{
	hand_over(k, (struct key){ BY_CALL, 0 });
}

/* The call has ended: it registered for `owner`, or failed. */
static void registered(struct key call, bool success, enum owner by, uintptr_t owner)
{
	if (success)
		hand_over(call, (struct key){ by, owner });
	else
		drop(call);
}

/*
 * Around a call that unregisters: the key may have a new owner as soon as it is done. Failed:
 * all is as before.
 */
static struct key unregister(enum owner by, uintptr_t owner)
{
	struct key call = key_of_call();

	hand_over((struct key){ by, owner }, call);
	return call;
}

static void unregistered(struct key call, bool success, enum owner by, uintptr_t owner)
{
	registered(call, !success, by, owner);
}

/* --- the real functions --- */

static void *real(const char *name, const char *version, const void *caller)
{
	void *fn = dlvsym(RTLD_NEXT, name, version), *scope;
	struct link_map *map;
	Dl_info info;

	if (fn)
		return fn;
	dlerror(); /* not the program's to find */
	if (!dladdr1(caller, &info, (void **)&map, RTLD_DL_LINKMAP) || !*map->l_name)
		return NULL;
	scope = dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD);
	if (!scope)
		return NULL;
	fn = dlvsym(scope, name, version);
	dlclose(scope);
	return fn;
}

#define CALLER __builtin_return_address(0)
#define REAL(of, name, version) ((__typeof__(&(of)))real(name, version, CALLER))

/* `of` is what a program gets that was linked against this version of the name. */
#define VERSIONED(of, name, version) __asm__(".symver " #of "," name "@" version ",remove")

/* --- libibverbs --- */

#define VERBS_ON_DEMAND (1u << 6) /* IBV_ACCESS_ON_DEMAND: nothing is pinned */
#define VERBS_NEW_RANGE 1	  /* IBV_REREG_MR_CHANGE_TRANSLATION */

struct ibv_pd;
struct ibv_mr;

EXPORT struct ibv_mr *emf_reg_mr(struct ibv_pd *pd, void *addr, size_t len, int access);
EXPORT struct ibv_mr *emf_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t len, uint64_t iova,
				      int access);
EXPORT struct ibv_mr *emf_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t len, uint64_t iova,
				       unsigned access);
EXPORT int emf_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t len,
			int access);
EXPORT int emf_dereg_mr(struct ibv_mr *mr);

/* For a range that is registered on demand there is nothing to do. */
static void verbs_hold(void *addr, size_t len, unsigned access, struct key call)
{
	if (!(access & VERBS_ON_DEMAND))
		hold(addr, len, call);
}

struct ibv_mr *emf_reg_mr(struct ibv_pd *pd, void *addr, size_t len, int access)
{
	__typeof__(&emf_reg_mr) fn = REAL(emf_reg_mr, "ibv_reg_mr", "IBVERBS_1.1");
	struct key call = key_of_call();
	struct ibv_mr *mr = NULL;

	if (!fn) {
		errno = ENOSYS;
		return NULL;
	}
	verbs_hold(addr, len, (unsigned)access, call);
	mr = fn(pd, addr, len, access);
	registered(call, mr, BY_VERBS, (uintptr_t)mr);
	return mr;
}
VERSIONED(emf_reg_mr, "ibv_reg_mr", "IBVERBS_1.1");

struct ibv_mr *emf_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t len, uint64_t iova, int access)
{
	__typeof__(&emf_reg_mr_iova) fn = REAL(emf_reg_mr_iova, "ibv_reg_mr_iova", "IBVERBS_1.7");
	struct key call = key_of_call();
	struct ibv_mr *mr = NULL;

	if (!fn) {
		errno = ENOSYS;
		return NULL;
	}
	verbs_hold(addr, len, (unsigned)access, call);
	mr = fn(pd, addr, len, iova, access);
	registered(call, mr, BY_VERBS, (uintptr_t)mr);
	return mr;
}
VERSIONED(emf_reg_mr_iova, "ibv_reg_mr_iova", "IBVERBS_1.7");

/* What the macro ibv_reg_mr of newer headers calls. */
struct ibv_mr *emf_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t len, uint64_t iova,
				unsigned access)
{
	__typeof__(&emf_reg_mr_iova2) fn =
	    REAL(emf_reg_mr_iova2, "ibv_reg_mr_iova2", "IBVERBS_1.8");
	struct key call = key_of_call();
	struct ibv_mr *mr = NULL;

	if (!fn) {
		errno = ENOSYS;
		return NULL;
	}
	verbs_hold(addr, len, access, call);
	mr = fn(pd, addr, len, iova, access);
	registered(call, mr, BY_VERBS, (uintptr_t)mr);
	return mr;
}
VERSIONED(emf_reg_mr_iova2, "ibv_reg_mr_iova2", "IBVERBS_1.8");

/* The old range stays with the owner, too, until that ends. */
int emf_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t len,
		 int access)
{
	__typeof__(&emf_rereg_mr) fn = REAL(emf_rereg_mr, "ibv_rereg_mr", "IBVERBS_1.1");
	struct key call = key_of_call();

	if (!fn)
		return ENOSYS;
	if (flags & VERBS_NEW_RANGE)
		hold(addr, len, call);
	int r = fn(mr, flags, pd, addr, len, access);
	/* Its failures may leave either range registered. */
	registered(call, true, BY_VERBS, (uintptr_t)mr);
	return r;
}
VERSIONED(emf_rereg_mr, "ibv_rereg_mr", "IBVERBS_1.1");

int emf_dereg_mr(struct ibv_mr *mr)
{
	__typeof__(&emf_dereg_mr) fn = REAL(emf_dereg_mr, "ibv_dereg_mr", "IBVERBS_1.1");

	if (!fn)
		return ENOSYS;
	struct key call = unregister(BY_VERBS, (uintptr_t)mr);
	int r = fn(mr);
	unregistered(call, !r, BY_VERBS, (uintptr_t)mr);
	return r;
}
VERSIONED(emf_dereg_mr, "ibv_dereg_mr", "IBVERBS_1.1");

/* --- the runtimes of CUDA and HIP --- */

#define GPU_NOT_SUPPORTED 801 /* cudaErrorNotSupported, hipErrorNotSupported */

typedef int host_register(void *p, size_t len, unsigned flags);
typedef int host_unregister(void *p);

static int gpu_register(host_register *fn, enum owner by, void *p, size_t len, unsigned flags)
{
	struct key call = key_of_call();

	if (!fn)
		return GPU_NOT_SUPPORTED;
	hold(p, len, call);
	int r = fn(p, len, flags);
	registered(call, !r, by, (uintptr_t)p);
	return r;
}

static int gpu_unregister(host_unregister *fn, enum owner by, void *p)
{
	if (!fn)
		return GPU_NOT_SUPPORTED;
	struct key call = unregister(by, (uintptr_t)p);
	int r = fn(p);
	unregistered(call, !r, by, (uintptr_t)p);
	return r;
}

/* A version of its own in every major release. */
#define GPU(id, by, prefix, version)                                                               \
	EXPORT host_register emf_##id##_register;                                                  \
	EXPORT host_unregister emf_##id##_unregister;                                              \
	int emf_##id##_register(void *p, size_t len, unsigned flags)                               \
	{                                                                                          \
		return gpu_register(real(prefix "HostRegister", version, CALLER), by, p, len,      \
				    flags);                                                        \
	}                                                                                          \
	int emf_##id##_unregister(void *p)                                                         \
	{                                                                                          \
		return gpu_unregister(real(prefix "HostUnregister", version, CALLER), by, p);      \
	}                                                                                          \
	VERSIONED(emf_##id##_register, prefix "HostRegister", version);                            \
	VERSIONED(emf_##id##_unregister, prefix "HostUnregister", version)

GPU(cuda10, BY_CUDA, "cuda", "libcudart.so.10.2");
GPU(cuda11, BY_CUDA, "cuda", "libcudart.so.11.0");
GPU(cuda12, BY_CUDA, "cuda", "libcudart.so.12");
GPU(cuda13, BY_CUDA, "cuda", "libcudart.so.13");
GPU(hip, BY_HIP, "hip", "hip_4.2");

/* --- liburing --- */

struct io_uring;

/* linux/io_uring.h; by number, as the headers may be older */
enum { RING_BUFFERS = 0, RING_UNREGISTER = 1, RING_BUFFERS2 = 15, RING_UPDATE = 16 };

EXPORT int emf_ring_buffers(struct io_uring *ring, const struct iovec *iov, unsigned n);
EXPORT int emf_ring_buffers_tags(struct io_uring *ring, const struct iovec *iov,
				 const uint64_t *tags, unsigned n);
EXPORT int emf_ring_update(struct io_uring *ring, unsigned off, const struct iovec *iov,
			   const uint64_t *tags, unsigned n);
EXPORT int emf_ring_unregister(struct io_uring *ring);
EXPORT int emf_ring_call(unsigned fd, unsigned opcode, const void *arg, unsigned n);

static void hold_all(const struct iovec *iov, size_t n, struct key call)
{
	for (size_t i = 0; iov && i < n; i++)
		hold(iov[i].iov_base, iov[i].iov_len, call);
}

int emf_ring_buffers(struct io_uring *ring, const struct iovec *iov, unsigned n)
{
	__typeof__(&emf_ring_buffers) fn =
	    REAL(emf_ring_buffers, "io_uring_register_buffers", "LIBURING_2.0");
	struct key call = key_of_call();

	if (!fn)
		return -ENOSYS;
	hold_all(iov, n, call);
	int r = fn(ring, iov, n);
	registered(call, r >= 0, BY_RING, (uintptr_t)ring);
	return r;
}
VERSIONED(emf_ring_buffers, "io_uring_register_buffers", "LIBURING_2.0");

int emf_ring_buffers_tags(struct io_uring *ring, const struct iovec *iov, const uint64_t *tags,
			  unsigned n)
{
	__typeof__(&emf_ring_buffers_tags) fn =
	    REAL(emf_ring_buffers_tags, "io_uring_register_buffers_tags", "LIBURING_2.1");
	struct key call = key_of_call();

	if (!fn)
		return -ENOSYS;
	hold_all(iov, n, call);
	int r = fn(ring, iov, tags, n);
	registered(call, r >= 0, BY_RING, (uintptr_t)ring);
	return r;
}
VERSIONED(emf_ring_buffers_tags, "io_uring_register_buffers_tags", "LIBURING_2.1");

/* What is replaced stays with the ring until all of it is unregistered: it may still be in use. */
int emf_ring_update(struct io_uring *ring, unsigned off, const struct iovec *iov,
		    const uint64_t *tags, unsigned n)
{
	__typeof__(&emf_ring_update) fn =
	    REAL(emf_ring_update, "io_uring_register_buffers_update_tag", "LIBURING_2.1");
	struct key call = key_of_call();

	if (!fn)
		return -ENOSYS;
	hold_all(iov, n, call);
	int r = fn(ring, off, iov, tags, n);
	registered(call, r >= 0, BY_RING, (uintptr_t)ring);
	return r;
}
VERSIONED(emf_ring_update, "io_uring_register_buffers_update_tag", "LIBURING_2.1");

int emf_ring_unregister(struct io_uring *ring)
{
	__typeof__(&emf_ring_unregister) fn =
	    REAL(emf_ring_unregister, "io_uring_unregister_buffers", "LIBURING_2.0");

	if (!fn)
		return -ENOSYS;
	struct key call = unregister(BY_RING, (uintptr_t)ring);
	int r = fn(ring);
	unregistered(call, r >= 0, BY_RING, (uintptr_t)ring);
	return r;
}
VERSIONED(emf_ring_unregister, "io_uring_unregister_buffers", "LIBURING_2.0");

int emf_ring_call(unsigned fd, unsigned opcode, const void *arg, unsigned n)
{
	__typeof__(&emf_ring_call) fn = REAL(emf_ring_call, "io_uring_register", "LIBURING_2.3");
	const struct { /* io_uring_rsrc_register */
		uint32_t n, flags;
		uint64_t reserved;
		const struct iovec *iov;
	} *all = arg;
	const struct { /* io_uring_rsrc_update2 */
		uint32_t off, reserved;
		const struct iovec *iov;
		const uint64_t *tags;
		uint32_t n;
	} *some = arg;
	struct key call = key_of_call();

	if (!fn)
		return -ENOSYS;
	if (opcode == RING_UNREGISTER)
		call = unregister(BY_RING_FD, fd);
	else if (opcode == RING_BUFFERS)
		hold_all(arg, n, call);
	else if (opcode == RING_BUFFERS2 && arg)
		hold_all(all->iov, all->n, call);
	else if (opcode == RING_UPDATE && arg)
		hold_all(some->iov, some->n, call);
	int r = fn(fd, opcode, arg, n);
	registered(call, (r >= 0) != (opcode == RING_UNREGISTER), BY_RING_FD, fd);
	return r;
}
VERSIONED(emf_ring_call, "io_uring_register", "LIBURING_2.3");

/* --- what reads behind the call: see direct.c --- */

struct io_uring_params;

EXPORT int emf_aio_setup(int n, void **context);
EXPORT int emf_aio_init(int n, void **context);
EXPORT int emf_ring_init(unsigned n, struct io_uring *ring, unsigned flags);
EXPORT int emf_ring_init_params(unsigned n, struct io_uring *ring, struct io_uring_params *p);
EXPORT int emf_ring_init_mem(unsigned n, struct io_uring *ring, struct io_uring_params *p,
			     void *buf, size_t len);
EXPORT int emf_ring_setup(unsigned n, struct io_uring_params *p);

/*
 * Not the runtime's own ring: that provider has its liburing in itself. libaio before 0.3.113 makes
 * its system calls by itself.
 */
#define ASYNC(of, name, version, ...)                                                              \
	__typeof__(&(of)) fn = REAL(of, name, version);                                            \
	int r = fn ? fn(__VA_ARGS__) : -ENOSYS;                                                    \
	direct_async();                                                                            \
	return r

int emf_aio_setup(int n, void **context)
{
	ASYNC(emf_aio_setup, "io_setup", "LIBAIO_0.4", n, context);
}
VERSIONED(emf_aio_setup, "io_setup", "LIBAIO_0.4");

int emf_aio_init(int n, void **context)
{
	ASYNC(emf_aio_init, "io_queue_init", "LIBAIO_0.1", n, context);
}
VERSIONED(emf_aio_init, "io_queue_init", "LIBAIO_0.1");

int emf_ring_init(unsigned n, struct io_uring *ring, unsigned flags)
{
	ASYNC(emf_ring_init, "io_uring_queue_init", "LIBURING_2.0", n, ring, flags);
}
VERSIONED(emf_ring_init, "io_uring_queue_init", "LIBURING_2.0");

int emf_ring_init_params(unsigned n, struct io_uring *ring, struct io_uring_params *p)
{
	ASYNC(emf_ring_init_params, "io_uring_queue_init_params", "LIBURING_2.0", n, ring, p);
}
VERSIONED(emf_ring_init_params, "io_uring_queue_init_params", "LIBURING_2.0");

int emf_ring_init_mem(unsigned n, struct io_uring *ring, struct io_uring_params *p, void *buf,
		      size_t len)
{
	ASYNC(emf_ring_init_mem, "io_uring_queue_init_mem", "LIBURING_2.5", n, ring, p, buf, len);
}
VERSIONED(emf_ring_init_mem, "io_uring_queue_init_mem", "LIBURING_2.5");

int emf_ring_setup(unsigned n, struct io_uring_params *p)
{
	ASYNC(emf_ring_setup, "io_uring_setup", "LIBURING_2.3", n, p);
}
VERSIONED(emf_ring_setup, "io_uring_setup", "LIBURING_2.3");

/* --- MSG_ZEROCOPY --- */

static __typeof__(&send) real_send;
static __typeof__(&sendto) real_sendto;
static __typeof__(&sendmsg) real_sendmsg;
static __typeof__(&sendmmsg) real_sendmmsg;

/* At the start: dlsym must not be called where send may be, in a signal handler. */
__attribute__((constructor)) static void find_send(void)
{
	real_send = (__typeof__(real_send))dlsym(RTLD_NEXT, "send");
	real_sendto = (__typeof__(real_sendto))dlsym(RTLD_NEXT, "sendto");
	real_sendmsg = (__typeof__(real_sendmsg))dlsym(RTLD_NEXT, "sendmsg");
	real_sendmmsg = (__typeof__(real_sendmmsg))dlsym(RTLD_NEXT, "sendmmsg");
}

static void keep_message(const struct msghdr *msg)
{
	for (size_t i = 0; msg && msg->msg_iov && i < msg->msg_iovlen && i < IOV_MAX; i++)
		keep_local(msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len, KEPT_ALWAYS);
}

EXPORT ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	if (__builtin_expect(flags & MSG_ZEROCOPY, 0))
		keep_local(buf, len, KEPT_ALWAYS);
	/* NULL in constructors that run before ours. */
	return real_send ? real_send(fd, buf, len, flags)
			 : syscall(SYS_sendto, fd, buf, len, flags, NULL, 0);
}

EXPORT ssize_t sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *to,
		      socklen_t to_len)
{
	if (__builtin_expect(flags & MSG_ZEROCOPY, 0))
		keep_local(buf, len, KEPT_ALWAYS);
	return real_sendto ? real_sendto(fd, buf, len, flags, to, to_len)
			   : syscall(SYS_sendto, fd, buf, len, flags, to, to_len);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	if (__builtin_expect(flags & MSG_ZEROCOPY, 0))
		keep_message(msg);
	return real_sendmsg ? real_sendmsg(fd, msg, flags) : syscall(SYS_sendmsg, fd, msg, flags);
}

EXPORT int sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
	if (__builtin_expect(flags & MSG_ZEROCOPY, 0))
		for (unsigned i = 0; msgs && i < n && i < IOV_MAX; i++)
			keep_message(&msgs[i].msg_hdr);
	return real_sendmmsg ? real_sendmmsg(fd, msgs, n, flags)
			     : (int)syscall(SYS_sendmmsg, fd, msgs, n, flags);
}
