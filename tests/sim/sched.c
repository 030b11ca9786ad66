/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine.h"
#include "lock.h"
#include "sim.h"

#define STACK (256u << 10)
#define TRACES 100000

uint64_t sim_now = SIM_S;
struct co *co_self;
struct co co_all[CO_MAX];
bool tracing;

static void *scheduler_sp;
static uint64_t random_state;
static char traces[TRACES][160];
static size_t ntraces;

/* --- random numbers: splitmix64 --- */

uint64_t rnd(void)
{
	if (!random_state)
		random_state = plan.seed * 0x9e3779b97f4a7c15u + 1;
	uint64_t z = random_state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

size_t rnd_below(size_t n)
{
	return n ? rnd() % n : 0;
}

bool chance(unsigned n)
{
	return n && rnd() % n == 0;
}

/* --- what is told of a failure --- */

void trace(const char *fmt, ...)
{
	va_list ap;

	if (!tracing)
		return;
	char *line = traces[ntraces++ % TRACES];
	int n = snprintf(line, sizeof(traces[0]), "%12.6f %-8s ", (double)sim_now / 1e9,
			 co_self ? co_self->name : "-");
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(traces[0]) - (size_t)n, fmt, ap);
	va_end(ap);
}

static void dump_threads(void)
{
	for (struct co *c = co_all; c < co_all + CO_MAX; c++) {
		if (!c->used)
			continue;
		printf("# %-8s %s", c->name, c->doing ? c->doing : "");
		if (c->since)
			printf(" since %.3f s", (double)(sim_now - c->since) / 1e9);
		if (c->fault.parked)
			printf(", parked at %#lx (%s%s%s)", c->fault.addr,
			       c->fault.write ? "write" : "read",
			       c->fault.protect ? ", protected" : "",
			       c->fault.woken  ? ", woken"
			       : c->fault.read ? ", event read"
					       : ", event not read");
		if (c->handles)
			printf(", in a handler");
		if (c->futex)
			printf(", futex %p", c->futex);
		if (c->held)
			printf(", locks %#x", c->held);
		printf("\n");
	}
}

_Noreturn void sim_fail(const char *fmt, ...)
{
	static bool failing;
	va_list ap;

	if (failing)
		_exit(1);
	failing = true;
	printf("# seed %lu at %.6f s, %s: ", (unsigned long)plan.seed, (double)sim_now / 1e9,
	       co_self ? co_self->name : "scheduler");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	if (tracing) {
		for (size_t i = ntraces > TRACES ? ntraces - TRACES : 0; i < ntraces; i++)
			printf("# %s\n", traces[i % TRACES]);
		dump_threads();
		sim_dump();
	}
	fflush(stdout);
	_exit(1);
}

/* --- coroutines --- */

void co_switch(void **save, void *load);
__asm__(".globl co_switch\n"
	"co_switch:\n"
	"	push %rbp\n	push %rbx\n	push %r12\n"
	"	push %r13\n	push %r14\n	push %r15\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n"
	"	pop %r12\n	pop %rbx\n	pop %rbp\n"
	"	ret\n");

/* What is thread-local, as the linker has laid it out: right below the thread pointer. */
static const char *tls_image;
static size_t tls_image_size, tls_size, tls_block;

static int find_tls(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = info->dlpi_phdr + i;
		if (p->p_type != PT_TLS)
			continue;
		tls_image = (const char *)(info->dlpi_addr + p->p_vaddr);
		tls_image_size = p->p_filesz;
		tls_size = p->p_memsz;
		tls_block = (p->p_memsz + p->p_align - 1) & ~(p->p_align - 1);
	}
	return 1; /* the program comes first */
}

static void *tls(void)
{
	char *p;

	__asm__("mov %%fs:0, %0" : "=r"(p));
	return p - tls_block;
}

static void leave(void)
{
	struct co *self = co_self;

	self->err = errno;
	memcpy(self->tls, tls(), tls_size);
	co_switch(&self->sp, scheduler_sp);
	memcpy(tls(), self->tls, tls_size);
	errno = self->err;
}

static bool never(struct co *c, void *arg)
{
	(void)c;
	(void)arg;
	return false;
}

static void entry(void)
{
	struct co *self = co_self;

	memcpy(tls(), self->tls, tls_size);
	self->fn(self->arg);
	self->used = false;
	self->ready = never;
	leave();
	abort();
}

struct co *co_start(const char *name, void *(*fn)(void *), void *arg)
{
	struct co *c = co_all;

	while (c < co_all + CO_MAX && c->used)
		c++;
	if (c == co_all + CO_MAX)
		sim_fail("too many threads");
	char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack == MAP_FAILED)
		abort();
	*c = (struct co){ .used = true, .name = name, .fn = fn, .arg = arg };
	if (!tls_size)
		dl_iterate_phdr(find_tls, NULL);
	if (tls_size > CO_TLS)
		sim_fail("too much is thread-local: %zu bytes", tls_size);
	memcpy(c->tls, tls_image, tls_image_size);
	/* As co_switch leaves it, and aligned as behind a call. */
	void **sp = (void **)(void *)(stack + STACK - 64);
	*sp = (void *)entry;
	c->sp = sp - 6;
	return c;
}

bool co_block(bool (*ready)(struct co *, void *), void *arg, uint64_t deadline)
{
	struct co *self = co_self;

	self->ready = ready;
	self->ready_arg = arg;
	self->deadline = deadline;
	self->timed_out = false;
	leave();
	self->ready = NULL;
	self->deadline = 0;
	return !self->timed_out;
}

void co_point(void)
{
	struct co *self = co_self;

	if (!self)
		return;
	if (chance(plan.slow))
		self->slow_until = sim_now + rnd_below(chance(10) ? 300 * SIM_MS : 5 * SIM_MS);
	else if (rnd() & 3)
		return;
	leave();
}

void co_sleep(uint64_t ns)
{
	co_block(never, NULL, sim_now + ns);
}

static bool runnable(struct co *c)
{
	if (!c->used || c->slow_until > sim_now)
		return false;
	if (!c->ready || c->ready(c, c->ready_arg))
		return true;
	if (!c->deadline || c->deadline > sim_now)
		return false;
	c->timed_out = true;
	return true;
}

static void sooner(uint64_t *next, uint64_t at, uint64_t now)
{
	if (at > now && at < *next)
		*next = at;
}

static void idle(uint64_t now)
{
	uint64_t next = UINT64_MAX;

	for (struct co *c = co_all; c < co_all + CO_MAX; c++)
		if (c->used) {
			sooner(&next, c->slow_until, now);
			if (c->deadline)
				sooner(&next, c->deadline, now);
		}
	sooner(&next, store_next_due(now), now);
	if (next == UINT64_MAX)
		sim_fail("all threads wait for ever");
	if (next > sim_now)
		sim_now = next;
}

static void look_for_hangs(void)
{
	for (struct co *c = co_all; c < co_all + CO_MAX; c++)
		if (c->used && c->since && sim_now - c->since > HANG_NS)
			sim_fail("%s waits for ever: %s", c->name, c->doing);
}

void co_run(bool (*over)(void), void (*every)(void))
{
	struct co *can[CO_MAX];

	for (uint64_t step = 0; !over(); step++) {
		size_t n = 0;
		uint64_t now = sim_now;
		for (struct co *c = co_all; c < co_all + CO_MAX; c++)
			if (runnable(c))
				can[n++] = c;
		if (step % 64 == 0) {
			look_for_hangs();
			every();
		}
		sim_now += 200 + rnd_below(2000);
		if (!n) {
			idle(now);
			continue;
		}
		co_self = can[rnd_below(n)];
		co_switch(&scheduler_sp, co_self->sp);
		co_self = NULL;
	}
}

/* --- threads of the runtime --- */

int pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	static const char *const name[] = { "keeper", "mover", "fault", "control" };
	static size_t n;

	(void)attr;
	*t = 0;
	co_start(n < 4 ? name[n] : "runtime", fn, arg);
	n++;
	return 0;
}

/* --- lock.h --- */

static bool is_free(struct co *c, void *arg)
{
	(void)c;
	return !((struct lock *)arg)->word;
}

void lock_take(struct lock *l)
{
	if (co_self->held >> l->rank)
		sim_fail("locks out of order: %#x, then %u", co_self->held, l->rank);
	if (l->rank != RANK_ARENA)
		co_point();
	while (l->word)
		co_block(is_free, l, 0);
	l->word = (uint32_t)(co_self - co_all) + 1;
	co_self->held |= 1u << l->rank;
}

bool lock_try(struct lock *l)
{
	if (l->word)
		return false;
	lock_take(l);
	return true;
}

void lock_give(struct lock *l)
{
	if (l->word != (uint32_t)(co_self - co_all) + 1)
		sim_fail("a lock of rank %u is given back by who has it not", l->rank);
	l->word = 0;
	co_self->held &= ~(1u << l->rank);
	if (l->rank != RANK_ARENA)
		co_point();
}

void lock_reset(struct lock *l)
{
	l->word = 0;
	co_self->held &= ~(1u << l->rank);
}

static bool futex_woken(struct co *c, void *arg)
{
	(void)arg;
	return c->futex_woken;
}

void word_wait(_Atomic uint32_t *word, uint32_t seen, int timeout_ms)
{
	co_point();
	if (*word != seen || chance(plan.spurious))
		return;
	if (co_self->held)
		sim_fail("waits with locks %#x", co_self->held);
	co_self->futex = word;
	co_self->futex_woken = false;
	if (co_self->handles && plan.patient)
		timeout_ms = -1;
	co_block(futex_woken, NULL, timeout_ms < 0 ? 0 : sim_now + (uint64_t)timeout_ms * SIM_MS);
	co_self->futex = NULL;
}

void word_signal(_Atomic uint32_t *word)
{
	++*word;
	k_futex_wake(word, 1000);
	co_point();
}

int k_futex_wait(_Atomic uint32_t *word, uint32_t seen, int timeout_ms)
{
	word_wait(word, seen, timeout_ms);
	return 0;
}

int k_futex_wake(_Atomic uint32_t *word, int n)
{
	int woken = 0;

	for (struct co *c = co_all; c < co_all + CO_MAX && woken < n; c++)
		if (c->used && c->futex == word && !c->futex_woken) {
			c->futex_woken = true;
			woken++;
		}
	return woken;
}

int k_futex_wait_shared(_Atomic uint32_t *word, uint32_t seen, int timeout_ms)
{
	return k_futex_wait(word, seen, timeout_ms);
}

int k_futex_wake_shared(_Atomic uint32_t *word, int n)
{
	return k_futex_wake(word, n);
}

/* --- poll --- */

struct polled {
	struct pollfd *fds;
	nfds_t n;
};

static bool fd_ready(int fd)
{
	fd = signal_fd(fd);
	if (fd >= STORE_FD)
		return store_fd_ready(fd);
	return fd < UFFD_FD || kernel_fd_ready(fd); /* real ones are always ready (stripe.c) */
}

static bool any_ready(struct co *c, void *arg)
{
	const struct polled *p = arg;

	(void)c;
	for (nfds_t i = 0; i < p->n; i++)
		if (fd_ready(p->fds[i].fd))
			return true;
	return false;
}

int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	struct polled p = { fds, n };
	int ready = 0;

	if (co_self->held)
		sim_fail("polls with locks %#x", co_self->held);
	if (timeout)
		co_block(any_ready, &p, timeout < 0 ? 0 : sim_now + (uint64_t)timeout * SIM_MS);
	else
		leave();
	for (nfds_t i = 0; i < n; i++) {
		fds[i].revents = fd_ready(fds[i].fd) ? fds[i].events : 0;
		ready += fds[i].revents != 0;
	}
	return ready;
}
