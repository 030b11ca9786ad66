/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random sequences of memory calls, against a plain model of what each page holds:
 *
 *   model SEED SECONDS SIZE [THREADS] [--steps N] [--no-fork] [--copy] [--raw PERCENT]
 *
 * Every thread has about SIZE/THREADS bytes: mappings wherever the kernel puts them,
 * allocations, and a window of address space in which mappings are cut, replaced,
 * unmapped across their borders and moved to. A failure prints the seed, the last
 * operations and whose data was found instead. --steps: so many of each thread at least,
 * however long it takes. --raw: so many percent of munmap,
 * madvise, mremap and fork go past libc's symbols. --copy: leaves out process_vm_writev,
 * which writes to pages that it has pinned: where pages are copied, to the old ones.
 *
 * The model lies in MAP_NORESERVE memory, which a runtime like ours leaves alone; a
 * forked child has a private copy of it and goes on with random operations of its own.
 */
#include "prog.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

enum {
	EXTENTS = 96,
	EXTENT_PAGES = 8192,	/* the most that one can grow to: 32 MiB */
	MAP_PAGES = 4096,	/* the most that one starts with */
	WINDOW_PAGES = 12288,
	BUF_PAGES = 64,
	LOG_LINES = 50,
	LOG_LINE = 120,
	CHILDREN = 3,
	DEPTH = 2,
	STUCK_SECONDS = 30,
};

/* What a page holds; see word(). */
struct rec {
	uint32_t id, base, poke;
	uint32_t vma; /* pages of equal number are one mapping with equal attributes for sure */
	uint8_t prot, flags;
};

enum {
	R_MAYBE = 1,	/* MADV_FREE: any of its words may be zero by now */
	R_LOCKED = 2,	/* mlock */
	R_RESIDENT = 4, /* and not only on fault */
	R_DONTFORK = 8,
	R_WIPE = 16,
	R_LOST = 32, /* not ours: somebody else's mapping may be there */
};

enum kind { UNUSED, WINDOW, MAPPED, HEAP };

struct extent {
	enum kind kind;
	char *p;
	size_t size; /* bytes; only of HEAP the last page may be a part */
	size_t n;
	struct rec *recs;
};

struct world {
	uint64_t rng;
	unsigned me, depth;
	size_t budget; /* pages with data that there should be */
	uint32_t ids, versions, vmas;
	bool no_heap; /* a child of a raw fork: libc's locks are as they were */
	_Atomic unsigned long ops;
	int file, pipe[2], sock[2];
	pid_t child[CHILDREN];
	char *buf;
	struct extent ext[EXTENTS]; /* the first is the window */
	char log[LOG_LINES][LOG_LINE];
};

static uint64_t seed;
static unsigned raw_percent, threads = 1;
static bool copy_mode, no_fork;
static time_t deadline;
static unsigned long least;
static struct world *worlds[64];
static __thread struct world *w;
static __thread sigjmp_buf back;
static __thread volatile sig_atomic_t expecting;

/* --- failures: no stdio, as this may be the child of a raw fork or a signal handler --- */

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 1)
		n = sizeof(line) - 1;
	if (write(2, line, (size_t)n) < 0)
		_exit(3);
}

static void say_tail(const struct world *x)
{
	unsigned long ops = atomic_load(&x->ops);

	say("thread %u, depth %u: its last operations before number %lu:\n", x->me, x->depth, ops);
	for (unsigned long i = ops > LOG_LINES ? ops - LOG_LINES : 0; i < ops; i++)
		say("  %lu %s\n", i, x->log[i % LOG_LINES]);
}

static atomic_flag failing = ATOMIC_FLAG_INIT;

#define FAIL(...)                                                                                  \
	do {                                                                                       \
		if (atomic_flag_test_and_set(&failing))                                            \
			for (;;)                                                                   \
				pause();                                                           \
		say(__VA_ARGS__);                                                                  \
		say("\nseed %lu (model %lu SECONDS SIZE %u), process %d\n", (unsigned long)seed,   \
		    (unsigned long)seed, threads, (int)getpid());                                  \
		say_tail(w);                                                                       \
		_exit(1);                                                                          \
	} while (0)

#define MUST(cond, ...)                                                                            \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			int must_errno_ = errno;                                                   \
			say("%s:%d: %s: %s: ", __FILE__, __LINE__, #cond, strerror(must_errno_));  \
			FAIL(__VA_ARGS__);                                                         \
		}                                                                                  \
	} while (0)

__attribute__((format(printf, 1, 2))) static void log_op(const char *fmt, ...)
{
	unsigned long at = atomic_load(&w->ops);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w->log[at % LOG_LINES], LOG_LINE, fmt, ap);
	va_end(ap);
	atomic_store(&w->ops, at + 1);
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (sig != SIGALRM && expecting) {
		expecting = 0;
		siglongjmp(back, 1);
	}
	if (sig == SIGALRM)
		FAIL("stuck for %d s", STUCK_SECONDS);
	if (!w)
		die("signal %d at %p in a thread without a model", sig, info->si_addr);
	FAIL("unexpected signal %d (code %d) at %p", sig, info->si_code, info->si_addr);
}

static bool faults(volatile char *p, bool write)
{
	if (sigsetjmp(back, 1))
		return true;
	expecting = 1;
	if (write)
		*p = *p;
	else
		(void)*p;
	expecting = 0;
	return false;
}

/* --- random numbers --- */

static uint64_t rnd(void)
{
	return w->rng = mix(w->rng);
}

static size_t below(size_t n)
{
	return n ? (rnd() >> 11) % n : 0;
}

static bool chance(unsigned percent)
{
	return below(100) < percent;
}

/* 1..max, each order of magnitude as likely as the other. */
static size_t some_pages(size_t max)
{
	size_t n = ((size_t)1 << below(14));

	n += below(n);
	if (chance(25))
		n = (n + 511) & ~(size_t)511;
	return n > max ? 1 + below(max) : n;
}

/* --- contents --- */

/*
 * Word 0 names page and version, the words 1 and 511 the last short write, the others
 * follow from page and version. No version: zeros.
 */
static inline uint64_t word(const struct rec *r, uint64_t key, size_t i)
{
	if (i == 1 || i == WORDS - 1)
		return r->poke ? (uint64_t)r->id << 32 | r->poke : 0;
	if (!r->base)
		return 0;
	if (i == 0)
		return (uint64_t)r->id << 32 | r->base;
	return (key ^ i * 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
}

static inline uint64_t key_of(const struct rec *r)
{
	return mix(seed ^ ((uint64_t)r->id << 32 | r->base));
}

static void new_content(struct rec *r)
{
	r->base = ++w->versions;
	r->poke = 0;
	r->flags &= (uint8_t)~R_MAYBE;
}

static void put_content(char *p, const struct rec *r, size_t len)
{
	uint64_t key = key_of(r), *to = (uint64_t *)p;

	for (size_t i = 0; i < len / 8; i++)
		to[i] = word(r, key, i);
}

static void no_content(struct rec *r)
{
	r->base = r->poke = 0;
	r->flags &= (uint8_t)~R_MAYBE;
}

static size_t page_len(const struct extent *e, size_t i)
{
	return i * PAGE + PAGE <= e->size ? PAGE : e->size - i * PAGE;
}

static void mismatch(const char *what, const struct extent *e, size_t at, const char *p, size_t i,
		     uint64_t seen, uint64_t want)
{
	const struct rec *r = e->recs + at;
	volatile const uint64_t *now = (volatile const uint64_t *)p;

	FAIL("%s: page %zu of %s %p+%zu, at %p: word %zu is %lx instead of %lx, now %lx; page id %u, "
	     "version %u, short write %u, prot %u, flags %u; its first words are %lx %lx (id, version)",
	     what, at, e->kind == HEAP ? "heap" : e->kind == WINDOW ? "window" : "mapping",
	     (void *)e->p, e->size, (const void *)p, i, (unsigned long)seen, (unsigned long)want,
	     (unsigned long)now[i], r->id, r->base, r->poke, r->prot, r->flags,
	     (unsigned long)now[0], (unsigned long)now[1]);
}

static inline void check_word(const char *what, const struct extent *e, size_t at, const char *p,
			      uint64_t key, size_t i)
{
	uint64_t seen = ((volatile const uint64_t *)p)[i], want = word(e->recs + at, key, i);

	if (seen != want && !(seen == 0 && e->recs[at].flags & R_MAYBE))
		mismatch(what, e, at, p, i, seen, want);
}

/* p: where its content was brought to, or is. */
static void check_content(const char *what, const struct extent *e, size_t at, const char *p, bool whole)
{
	const struct rec *r = e->recs + at;
	size_t n = page_len(e, at) / 8;
	uint64_t key = key_of(r);

	if (whole) {
		for (size_t i = 0; i < n; i++)
			check_word(what, e, at, p, key, i);
		return;
	}
	if (!n)
		return;
	size_t few[] = {0, 1 % n, n - 1, below(n), below(n)};
	for (unsigned k = 0; k < 5; k++)
		check_word(what, e, at, p, key, few[k]);
}

static bool can_read(const struct rec *r)
{
	return r->prot & PROT_READ && !(r->flags & R_LOST);
}

static bool can_write(const struct rec *r)
{
	return r->prot & PROT_WRITE && !(r->flags & R_LOST);
}

static void check_range(const char *what, const struct extent *e, size_t a, size_t b, bool whole)
{
	for (size_t i = a; i < b && i < e->n; i++)
		if (can_read(e->recs + i))
			check_content(what, e, i, e->p + i * PAGE, whole);
}

/* And two pages on either side. */
static void check_around(const char *what, const struct extent *e, size_t a, size_t b)
{
	check_range(what, e, a > 2 ? a - 2 : 0, a, true);
	check_range(what, e, a, b, chance(20));
	check_range(what, e, b, b + 2, true);
}

static void check_all(const char *what, bool whole)
{
	for (struct extent *e = w->ext; e < w->ext + EXTENTS; e++)
		if (e->kind)
			check_range(what, e, 0, e->n, whole);
}

static void fill_range(struct extent *e, size_t a, size_t b)
{
	for (size_t i = a; i < b; i++)
		if (can_write(e->recs + i)) {
			new_content(e->recs + i);
			put_content(e->p + i * PAGE, e->recs + i, page_len(e, i));
		}
}

/* A short write: everything else of the page must stay. */
static void poke_page(struct extent *e, size_t i)
{
	struct rec *r = e->recs + i;
	uint64_t *p = (uint64_t *)(e->p + i * PAGE);

	if (!can_write(r))
		return;
	if (r->flags & R_MAYBE || page_len(e, i) < PAGE) {
		fill_range(e, i, i + 1);
		return;
	}
	r->poke = ++w->versions;
	p[1] = p[WORDS - 1] = word(r, 0, 1);
}

/* What is done with new or newly usable memory. */
static void use(struct extent *e, size_t a, size_t b)
{
	size_t step = 1 + below(40);

	switch (below(5)) {
	case 0:
		break;
	case 1:
		for (size_t i = a; i < b; i += step)
			poke_page(e, i);
		break;
	case 2:
		fill_range(e, a + (b - a) / 3, b);
		break;
	default:
		fill_range(e, a, b);
	}
}

/* --- the model's bookkeeping --- */

static void *unmanaged(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		die("no memory for the model: %s", strerror(errno));
	return p;
}

static struct extent *new_extent(enum kind kind, char *p, size_t size)
{
	for (struct extent *e = w->ext + 1; e < w->ext + EXTENTS; e++)
		if (!e->kind) {
			e->kind = kind;
			e->p = p;
			e->size = size;
			e->n = (size + PAGE - 1) / PAGE;
			return e;
		}
	return NULL;
}

static bool extents_left(void)
{
	for (struct extent *e = w->ext + 1; e < w->ext + EXTENTS; e++)
		if (!e->kind)
			return true;
	return false;
}

static void new_recs(struct extent *e, size_t a, size_t b, uint8_t prot)
{
	uint32_t vma = ++w->vmas;

	for (size_t i = a; i < b; i++)
		e->recs[i] = (struct rec){.id = ++w->ids, .vma = vma, .prot = prot};
}

/* Pages a..b become a mapping of their own, and so does what was behind them. */
static void split_vma(struct extent *e, size_t a, size_t b)
{
	if (b < e->n) {
		uint32_t old = e->recs[b].vma, vma = ++w->vmas;

		for (size_t i = b; i < e->n && e->recs[i].vma == old; i++)
			e->recs[i].vma = vma;
	}
	/* Each old one within gets a new number. */
	for (size_t i = a; i < b;) {
		uint32_t old = e->recs[i].vma, vma = ++w->vmas;

		for (; i < b && e->recs[i].vma == old; i++)
			e->recs[i].vma = vma;
	}
}

static size_t used_pages(void)
{
	size_t sum = 0;

	for (struct extent *e = w->ext; e < w->ext + EXTENTS; e++)
		for (size_t i = 0; e->kind && i < e->n; i++)
			sum += e->recs[i].base || e->recs[i].poke;
	return sum;
}

static bool any_flag(const struct extent *e, size_t a, size_t b, uint8_t flags)
{
	for (size_t i = a; i < b; i++)
		if (e->recs[i].flags & flags)
			return true;
	return false;
}

struct range {
	struct extent *e;
	size_t a, b;
};

enum { ALSO_HEAP = 1, NOT_WINDOW = 2 };

/* Some pages of some extent, none of them lost. */
static bool pick(struct range *g, int how, size_t max)
{
	struct extent *e = NULL;

	if (!(how & NOT_WINDOW) && chance(35)) {
		e = w->ext;
	} else {
		for (unsigned tries = 0; tries < 3 * EXTENTS && !e; tries++) {
			e = w->ext + 1 + below(EXTENTS - 1);
			if (!e->kind || !e->n || (e->kind == HEAP && !(how & ALSO_HEAP)))
				e = NULL;
		}
	}
	if (!e)
		return false;
	size_t len = some_pages(e->n < max ? e->n : max);
	switch (e->kind == WINDOW ? 3 : below(6)) {
	case 0:
		g->a = 0;
		len = e->n < max ? e->n : max;
		break;
	case 1:
		g->a = 0;
		break;
	case 2:
		g->a = e->n - len;
		break;
	default:
		g->a = below(e->n - len + 1);
	}
	g->e = e;
	g->b = g->a + len;
	for (size_t i = g->a; i < g->b; i++)
		if (e->recs[i].flags & R_LOST)
			g->b = i;
	return g->b > g->a;
}

static bool pick_readable(struct range *g, size_t max)
{
	if (!pick(g, ALSO_HEAP, max))
		return false;
	for (size_t i = g->a; i < g->b; i++)
		if (!can_read(g->e->recs + i))
			g->b = i;
	return g->b > g->a;
}

static bool pick_writable(struct range *g, size_t max)
{
	if (!pick(g, ALSO_HEAP, max))
		return false;
	for (size_t i = g->a; i < g->b; i++)
		if (!can_write(g->e->recs + i))
			g->b = i;
	return g->b > g->a;
}

static char *range_p(const struct range *g)
{
	return g->e->p + g->a * PAGE;
}

static size_t range_len(const struct range *g)
{
	return g->b * PAGE <= g->e->size ? (g->b - g->a) * PAGE : g->e->size - g->a * PAGE;
}

/* --- calls, by libc or past it --- */

static long past_libc(long nr, long a, long b, long c, long d, long e)
{
#ifdef __x86_64__
	/*
	 * A fork of which libc knows nothing can't be promised memory that is far, and of advice on
	 * what children get there is no event.
	 */
	bool seen = nr == SYS_clone ||
		    (nr == SYS_madvise && c >= MADV_DONTFORK && c <= MADV_DOFORK) ||
		    (nr == SYS_madvise && c >= MADV_WIPEONFORK && c <= MADV_KEEPONFORK);

	if (!seen && chance(50)) {
		register long r10 __asm__("r10") = d;
		register long r8 __asm__("r8") = e;
		long rc;

		__asm__ volatile("syscall"
				 : "=a"(rc)
				 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
				 : "rcx", "r11", "memory");
		if (rc < 0 && rc > -4096) {
			errno = (int)-rc;
			return -1;
		}
		return rc;
	}
#endif
	return syscall(nr, a, b, c, d, e);
}

static bool raw(void)
{
	return raw_percent && chance(raw_percent);
}

static int do_munmap(char *p, size_t len)
{
	if (raw()) {
		log_op("  raw:");
		return (int)past_libc(SYS_munmap, (long)p, (long)len, 0, 0, 0);
	}
	return munmap(p, len);
}

static int do_madvise(char *p, size_t len, int advice)
{
	if (raw()) {
		log_op("  raw:");
		return (int)past_libc(SYS_madvise, (long)p, (long)len, advice, 0, 0);
	}
	return madvise(p, len, advice);
}

static char *do_mremap(char *p, size_t old, size_t new, int flags, char *to)
{
	if (raw()) {
		log_op("  raw:");
		return (char *)past_libc(SYS_mremap, (long)p, (long)old, (long)new, flags, (long)to);
	}
	return mremap(p, old, new, flags, to);
}

/* --- mapping and unmapping --- */

/* Window pages a..b were unmapped: nobody else is to map something there. */
static void reserve(size_t a, size_t b)
{
	struct extent *e = w->ext;
	char *p = e->p + a * PAGE;

	if (a >= b)
		return;
	split_vma(e, a, b);
	char *q = mmap(p, (b - a) * PAGE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (q == MAP_FAILED) {
		MUST(errno == EEXIST, "reserve %p", (void *)p);
		/* Another thread was faster, or it was not unmapped. */
		for (size_t i = a; i < b; i++) {
			uint64_t first = 0;
			struct iovec mine = {&first, 8}, its = {e->p + i * PAGE, 8};

			if (e->recs[i].base && process_vm_readv(getpid(), &mine, 1, &its, 1, 0) == 8 &&
			    first == word(e->recs + i, 0, 0))
				FAIL("page %zu of the window, %p, is still there", i, its.iov_base);
		}
	}
	new_recs(e, a, b, PROT_NONE);
	for (size_t i = a; q == MAP_FAILED && i < b; i++)
		e->recs[i].flags = R_LOST;
}

/* The pages are gone from their place. */
static void gone(struct range *g)
{
	struct extent *e = g->e;

	if (e->kind == WINDOW) {
		reserve(g->a, g->b);
		return;
	}
	if (g->a == 0 && g->b == e->n) {
		e->kind = UNUSED;
		return;
	}
	if (g->b < e->n && g->a > 0) {
		struct extent *tail = new_extent(MAPPED, e->p + g->b * PAGE, e->size - g->b * PAGE);

		memcpy(tail->recs, e->recs + g->b, tail->n * sizeof(struct rec));
	} else if (g->a == 0) {
		memmove(e->recs, e->recs + g->b, (e->n - g->b) * sizeof(struct rec));
		e->p += g->b * PAGE;
		e->n -= g->b;
		e->size = e->n * PAGE;
		return;
	}
	e->n = g->a;
	e->size = e->n * PAGE;
}

static void op_map(void)
{
	static const int prots[] = {PROT_NONE, PROT_READ};
	size_t n = some_pages(MAP_PAGES);
	int prot = chance(5) ? prots[below(2)] : PROT_READ | PROT_WRITE;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | (chance(10) ? MAP_POPULATE : 0);

	if (n > w->budget / 4)
		n = 1 + n % (w->budget / 4);
	if (!extents_left())
		return;
	log_op("mmap %zu pages, prot %d, flags %x", n, prot, (unsigned)flags);
	char *p = mmap(NULL, n * PAGE, prot, flags, -1, 0);
	MUST(p != MAP_FAILED, "mmap");
	struct extent *e = new_extent(MAPPED, p, n * PAGE);
	new_recs(e, 0, n, (uint8_t)prot);
	log_op("  at %p", (void *)p);
	if (chance(30))
		check_range("new mapping", e, 0, n, chance(20));
	use(e, 0, n);
}

static void op_map_fixed(void)
{
	struct range g;

	if (!pick(&g, 0, MAP_PAGES))
		return;
	char *p = range_p(&g);
	int how = (int)below(5);

	if (how == 0) { /* a file, and at once memory again */
		log_op("mmap a file over %p, %zu pages", (void *)p, g.b - g.a);
		MUST(!ftruncate(w->file, (off_t)range_len(&g)), "ftruncate");
		MUST(pwrite(w->file, "file", 4, 0) == 4, "pwrite");
		MUST(mmap(p, range_len(&g), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, w->file,
			  0) == p,
		     "mmap");
		MUST(!memcmp(p, "file", 4), "the mapping does not show the file");
		memset(p + range_len(&g) - PAGE, 7, PAGE);
		char c = 0;
		MUST(pread(w->file, &c, 1, (off_t)(range_len(&g) - 1)) == 1 && c == 7,
		     "the file was not written");
	}
	int prot = how == 1 ? PROT_NONE : PROT_READ | PROT_WRITE;
	log_op("mmap over %p, %zu pages, prot %d", (void *)p, g.b - g.a, prot);
	MUST(mmap(p, range_len(&g), prot,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | (how == 2 ? MAP_NORESERVE : 0), -1,
		  0) == p,
	     "mmap");
	split_vma(g.e, g.a, g.b);
	new_recs(g.e, g.a, g.b, (uint8_t)prot);
	check_around("mapped over", g.e, g.a, g.b);
	use(g.e, g.a, g.b);
}

static void op_unmap(void)
{
	struct range g;

	if (!extents_left() || !pick(&g, 0, EXTENT_PAGES))
		return;
	struct extent *e = g.e;
	log_op("munmap %p, %zu pages, of %s %p", (void *)range_p(&g), g.b - g.a,
	       e->kind == WINDOW ? "window" : "mapping", (void *)e->p);
	MUST(!do_munmap(range_p(&g), range_len(&g)), "munmap");
	gone(&g);
	if (e->kind == WINDOW)
		check_around("unmapped", e, g.a, g.b);
	else if (e->kind)
		check_range("unmapped", e, 0, e->n, false);
}

static void op_protect(void)
{
	static const uint8_t prots[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
					PROT_READ | PROT_WRITE};
	struct range g;

	if (!pick(&g, 0, chance(30) ? MAP_PAGES : 100))
		return;
	uint8_t prot = prots[below(4)];
	log_op("mprotect %p, %zu pages, %d", (void *)range_p(&g), g.b - g.a, prot);
	MUST(!mprotect(range_p(&g), range_len(&g), prot), "mprotect");
	split_vma(g.e, g.a, g.b);
	for (size_t i = g.a; i < g.b; i++)
		g.e->recs[i].prot = prot;
	size_t i = g.a + below(g.b - g.a);
	if (!(prot & PROT_READ))
		MUST(faults(g.e->p + i * PAGE, false), "page %zu can be read", i);
	if (!(prot & PROT_WRITE))
		MUST(faults(g.e->p + i * PAGE + 100, true), "page %zu can be written", i);
	check_around("mprotect", g.e, g.a, g.b);
	if (prot & PROT_WRITE && chance(50))
		use(g.e, g.a, g.b);
}

/* All that mprotect has taken is given back, or there is soon nothing to test with. */
static void op_unprotect(void)
{
	struct range g;

	for (struct extent *e = w->ext + 1; e < w->ext + EXTENTS; e++) {
		if (e->kind != MAPPED || !chance(50))
			continue;
		g = (struct range){e, 0, e->n};
		if (any_flag(e, 0, e->n, R_LOST))
			continue;
		log_op("mprotect %p, %zu pages, rw", (void *)e->p, e->n);
		MUST(!mprotect(e->p, e->size, PROT_READ | PROT_WRITE), "mprotect");
		split_vma(e, 0, e->n);
		for (size_t i = 0; i < e->n; i++)
			e->recs[i].prot = PROT_READ | PROT_WRITE;
		check_range("mprotect", g.e, g.a, g.b, false);
	}
}

static void op_advise(void)
{
	static const struct {
		int advice;
		const char *name;
	} all[] = {
		{MADV_DONTNEED, "DONTNEED"},	 {MADV_DONTNEED, "DONTNEED"},
		{MADV_DONTNEED, "DONTNEED"},	 {MADV_FREE, "FREE"},
		{MADV_FREE, "FREE"},		 {MADV_POPULATE_READ, "POPULATE_READ"},
		{MADV_POPULATE_WRITE, "POPULATE_WRITE"},
		{MADV_HUGEPAGE, "HUGEPAGE"},	 {MADV_NOHUGEPAGE, "NOHUGEPAGE"},
		{MADV_WILLNEED, "WILLNEED"},	 {MADV_COLD, "COLD"},
		{MADV_PAGEOUT, "PAGEOUT"},	 {MADV_DONTFORK, "DONTFORK"},
		{MADV_DOFORK, "DOFORK"},	 {MADV_DOFORK, "DOFORK"},
		{MADV_WIPEONFORK, "WIPEONFORK"}, {MADV_KEEPONFORK, "KEEPONFORK"},
		{MADV_DONTDUMP, "DONTDUMP"},	 {MADV_DODUMP, "DODUMP"},
		{MADV_MERGEABLE, "MERGEABLE"},	 {MADV_UNMERGEABLE, "UNMERGEABLE"},
	};
	struct range g;
	size_t k = below(sizeof(all) / sizeof(*all));
	int advice = all[k].advice;
	bool changes = advice == MADV_DONTNEED || advice == MADV_FREE;
	/* What changes a mapping's attributes is for mappings alone: of the heap others have a part. */
	bool heap = changes || advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE ||
		    advice == MADV_COLD || advice == MADV_PAGEOUT || advice == MADV_WILLNEED;

	if (!pick(&g, heap ? ALSO_HEAP : 0, EXTENT_PAGES))
		return;
	if (g.e->kind == HEAP && ((uintptr_t)g.e->p % PAGE || range_len(&g) % PAGE))
		return;
	bool locked = any_flag(g.e, g.a, g.b, R_LOCKED);
	log_op("madvise %p, %zu pages, %s%s", (void *)range_p(&g), g.b - g.a, all[k].name,
	       locked ? ", some locked" : "");
	int rc = do_madvise(range_p(&g), range_len(&g), advice);
	if (rc && (!changes || locked))
		MUST(errno == EINVAL || errno == EFAULT || errno == ENOMEM || errno == EAGAIN,
		     "madvise");
	else
		MUST(!rc, "madvise");
	if (changes && locked)
		MUST(rc, "locked memory was discarded");
	for (size_t i = g.a; i < g.b; i++) {
		struct rec *r = g.e->recs + i;

		if (changes && (r->flags & R_LOCKED))
			continue;
		if (advice == MADV_DONTNEED && !rc)
			no_content(r);
		else if (changes && (r->base || r->poke)) /* also what precedes a locked page */
			r->flags |= R_MAYBE;
		else if (advice == MADV_DONTFORK && !rc)
			r->flags |= R_DONTFORK;
		else if (advice == MADV_DOFORK && !rc)
			r->flags &= (uint8_t)~R_DONTFORK;
		else if (advice == MADV_WIPEONFORK && !rc)
			r->flags |= R_WIPE;
		else if (advice == MADV_KEEPONFORK && !rc)
			r->flags &= (uint8_t)~R_WIPE;
	}
	if (!heap)
		split_vma(g.e, g.a, g.b);
	if (chance(80))
		check_around(all[k].name, g.e, g.a, g.b);
	if (changes && chance(40))
		use(g.e, g.a, g.b);
}

static void op_lock(void)
{
	struct range g;

	if (!pick(&g, 0, 64))
		return;
	char *p = range_p(&g);
	int how = (int)below(3), rc;
	log_op("%s %p, %zu pages", how == 2 ? "munlock" : how == 1 ? "mlock2" : "mlock", (void *)p,
	       g.b - g.a);
	rc = how == 2	? munlock(p, range_len(&g))
	     : how == 1 ? mlock2(p, range_len(&g), MLOCK_ONFAULT)
			: mlock(p, range_len(&g));
	split_vma(g.e, g.a, g.b);
	if (rc) { /* PROT_NONE is in it, or a limit */
		MUST(errno == ENOMEM || errno == EPERM || errno == EAGAIN, "mlock");
		MUST(!munlock(p, range_len(&g)), "munlock");
	}
	for (size_t i = g.a; i < g.b; i++) {
		uint8_t *f = &g.e->recs[i].flags;

		*f &= (uint8_t)~(R_LOCKED | R_RESIDENT);
		if (!rc && how < 2)
			*f |= how == 1 ? R_LOCKED : R_LOCKED | R_RESIDENT;
	}
	check_around("mlock", g.e, g.a, g.b);
}

/* What the kernel says of the mapping that holds p, for who looks into a failure. */
static void show_mapping(const char *p)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	bool inside = false;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start <= (uintptr_t)p && (uintptr_t)p < end;
		if (inside && (sscanf(line, "%lx-%lx ", &start, &end) == 2 || !strncmp(line, "Rss", 3) ||
			       !strncmp(line, "Locked", 6) || !strncmp(line, "VmFlags", 7)))
			fprintf(stderr, "%s", line);
	}
	if (f)
		fclose(f);
}

static void check_locked(void)
{
	unsigned char there;

	for (struct extent *e = w->ext; e < w->ext + EXTENTS; e++)
		for (size_t i = 0; e->kind && i < e->n; i++)
			if (e->recs[i].flags & R_RESIDENT) {
				MUST(!mincore(e->p + i * PAGE, PAGE, &there), "mincore");
				if (!(there & 1))
					show_mapping(e->p + i * PAGE);
				MUST(there & 1, "locked page %zu of %p is not resident", i, (void *)e->p);
			}
}

/* --- mremap --- */

/* Of a range that is one mapping for sure. */
static bool pick_one_vma(struct range *g)
{
	if (!pick(g, 0, MAP_PAGES))
		return false;
	for (size_t i = g->a; i < g->b; i++)
		if (g->e->recs[i].vma != g->e->recs[g->a].vma)
			g->b = i;
	return true;
}

static void copy_recs(struct extent *to, size_t at, const struct rec *from, size_t old, size_t new)
{
	uint32_t vma = ++w->vmas;

	for (size_t i = 0; i < new; i++) {
		struct rec r = from[i < old ? i : 0];

		if (i >= old) {
			/* As the mapping it has grown from, but empty. */
			r.id = ++w->ids;
			no_content(&r);
			if (!r.prot) /* locked or not, the kernel populates nothing there */
				r.flags &= (uint8_t)~R_RESIDENT;
		}
		r.vma = vma;
		to->recs[at + i] = r;
	}
}

static struct rec *scratch(const struct range *g)
{
	static __thread struct rec *s;

	if (!s)
		s = unmanaged((size_t)WINDOW_PAGES * sizeof(*s));
	memcpy(s, g->e->recs + g->a, (g->b - g->a) * sizeof(*s));
	return s;
}

static void op_remap_shrink(void)
{
	struct range g;

	if (!extents_left() || !pick_one_vma(&g) || g.b - g.a < 2)
		return;
	size_t keep = 1 + below(g.b - g.a - 1);
	struct range cut = {g.e, g.a + keep, g.b};
	log_op("mremap %p, %zu pages to %zu", (void *)range_p(&g), g.b - g.a, keep);
	char *p = do_mremap(range_p(&g), range_len(&g), keep * PAGE, chance(50) ? MREMAP_MAYMOVE : 0, NULL);
	MUST(p == range_p(&g), "it is at %p", (void *)p);
	gone(&cut);
	check_around("mremap shrunk", g.e, g.a, g.a + keep);
}

/* Where the way is free it must be possible. */
static void op_remap_grow(void)
{
	struct range g;
	size_t more = some_pages(1024);

	if (!pick_one_vma(&g))
		return;
	struct extent *e = g.e;
	size_t old = g.b - g.a;
	if (e->kind == WINDOW) {
		if (g.b + more > e->n || any_flag(e, g.b, g.b + more, R_LOST))
			return;
		log_op("munmap %p, %zu pages, and grow %zu pages below it", (void *)(e->p + g.b * PAGE),
		       more, old);
		MUST(!do_munmap(e->p + g.b * PAGE, more * PAGE), "munmap");
	} else {
		/* The end of the extent; what is behind it is unknown. */
		g.b = e->n;
		for (size_t i = g.a; i < g.b; i++)
			if (e->recs[i].vma != e->recs[e->n - 1].vma)
				g.a = i + 1;
		old = g.b - g.a;
		/* What is not there in a child, that it was not to inherit, can't grow. */
		if (e->n + more > EXTENT_PAGES || g.a >= g.b || any_flag(e, g.a, g.b, R_LOST))
			return;
		log_op("mremap %p, %zu pages, by %zu in place", (void *)range_p(&g), old, more);
	}
	char *p = do_mremap(range_p(&g), old * PAGE, (old + more) * PAGE, 0, NULL);
	if (p == MAP_FAILED) {
		MUST(errno == ENOMEM, "mremap");
		if (e->kind == WINDOW)
			reserve(g.b, g.b + more);
	} else {
		MUST(p == range_p(&g), "it is at %p", (void *)p);
		struct rec *s = scratch(&g);
		if (e->kind == WINDOW) {
			split_vma(e, g.b, g.b + more);
		} else {
			e->n += more;
			e->size += more * PAGE;
		}
		copy_recs(e, g.a, s, old, old + more);
	}
	check_around("mremap grown in place", e, g.a, g.b + (p == MAP_FAILED ? 0 : more));
	if (p != MAP_FAILED && chance(50))
		use(e, g.b, g.b + more);
}

static void op_remap_maymove(void)
{
	struct range g;
	size_t more = some_pages(512);

	if (!extents_left() || !pick_one_vma(&g))
		return;
	struct extent *e = g.e;
	size_t old = g.b - g.a;
	bool end = e->kind != WINDOW && g.b == e->n;
	if ((end ? e->n : old) + more > EXTENT_PAGES)
		return;
	struct rec *s = scratch(&g);
	log_op("mremap %p, %zu pages, by %zu, may move", (void *)range_p(&g), old, more);
	char *p = do_mremap(range_p(&g), old * PAGE, (old + more) * PAGE, MREMAP_MAYMOVE, NULL);
	MUST(p != MAP_FAILED, "mremap");
	log_op("  to %p", (void *)p);
	if (p == range_p(&g)) {
		/* In a child there is a hole where MADV_DONTFORK was. */
		for (size_t i = g.b; i < g.b + more && i < e->n; i++)
			MUST(e->recs[i].flags & R_LOST, "it grew over page %zu behind it", i);
		if (g.b + more > e->n) {
			MUST(e->kind != WINDOW, "it grew out of the window");
			e->n = g.b + more;
			e->size = e->n * PAGE;
		}
		copy_recs(e, g.a, s, old, old + more);
		check_around("mremap in place", e, g.a, e->n);
		return;
	}
	struct extent *to = new_extent(MAPPED, p, (old + more) * PAGE);
	copy_recs(to, 0, s, old, old + more);
	if (extents_left() || e->kind == WINDOW || end || g.a == 0) {
		gone(&g);
	} else {
		/* No entry for its two ends: forget and unmap the second. */
		struct range rest = {e, g.a, e->n};
		MUST(!munmap(e->p + g.b * PAGE, (e->n - g.b) * PAGE), "munmap");
		gone(&rest);
	}
	check_range("mremap moved", to, 0, to->n, chance(30));
	if (e->kind)
		check_range("mremap left", e, g.a > 2 ? g.a - 2 : 0, g.a + 2, true);
	if (chance(50))
		use(to, 0, to->n);
}

/* To a fixed place in the window, with or without leaving the old one mapped. */
static void op_remap_fixed(void)
{
	struct range g;
	struct extent *win = w->ext;

	if (!extents_left() || !pick_one_vma(&g))
		return;
	size_t old = g.b - g.a, new = old;
	bool keep = chance(30);
	if (keep && any_flag(g.e, g.a, g.b, R_LOCKED))
		return;
	if (!keep && chance(40))
		new = 1 + below(2 * old);
	if (new > EXTENT_PAGES)
		new = old;
	size_t at = chance(50) ? below(win->n - new + 1) : below((win->n - new) / 512 + 1) * 512;
	if (any_flag(win, at, at + new, R_LOST) ||
	    (g.e == win && at < g.b && at + new > g.a))
		return;
	struct rec *s = scratch(&g);
	char *to = win->p + at * PAGE;
	log_op("mremap %p, %zu pages to %zu at %p%s", (void *)range_p(&g), old, new, (void *)to,
	       keep ? ", DONTUNMAP" : "");
	char *p = do_mremap(range_p(&g), old * PAGE, new * PAGE,
			    MREMAP_MAYMOVE | MREMAP_FIXED | (keep ? MREMAP_DONTUNMAP : 0), to);
	if (p == MAP_FAILED && keep && errno == EINVAL)
		return; /* not in this kernel */
	MUST(p == to, "it is at %p", (void *)p);
	split_vma(win, at, at + new);
	copy_recs(win, at, s, old, new);
	if (keep) {
		split_vma(g.e, g.a, g.b);
		for (size_t i = g.a; i < g.b; i++) {
			g.e->recs[i].id = ++w->ids;
			no_content(g.e->recs + i);
		}
		check_around("mremap left behind", g.e, g.a, g.b);
	} else {
		gone(&g);
	}
	check_around("mremap to a fixed place", win, at, at + new);
	if (chance(50))
		use(win, at, at + new);
}

/* --- the heap --- */

static void op_heap_alloc(void)
{
	if (w->no_heap || !extents_left())
		return;
	size_t size = chance(30) ? 16 + below(3 * PAGE) : some_pages(MAP_PAGES / 2) * PAGE;
	size_t align = (size_t)8 << below(19); /* up to 2 MiB */
	void *p = NULL;

	if (chance(50))
		size += below(PAGE) & ~(size_t)7;
	if (size / PAGE > w->budget / 4)
		size = PAGE + size % (w->budget / 4 * PAGE);
	size &= ~(size_t)7;
	unsigned how = (unsigned)below(3);
	log_op("%s %zu", how == 0 ? "malloc" : how == 1 ? "calloc" : "posix_memalign", size);
	if (how == 0)
		p = malloc(size);
	else if (how == 1)
		p = calloc(1, size);
	else
		MUST(!posix_memalign(&p, align, size) && (uintptr_t)p % align == 0,
		     "posix_memalign by %zu gives %p", align, p);
	MUST(p, "no memory");
	log_op("  at %p", p);
	struct extent *e = new_extent(HEAP, p, size);
	new_recs(e, 0, e->n, PROT_READ | PROT_WRITE);
	if (how == 1)
		check_range("calloc", e, 0, e->n, true);
	if (how != 1 || chance(50))
		fill_range(e, 0, e->n);
}

static struct extent *some_heap(void)
{
	for (unsigned i = 0; i < 3 * EXTENTS; i++) {
		struct extent *e = w->ext + 1 + below(EXTENTS - 1);
		if (e->kind == HEAP)
			return e;
	}
	return NULL;
}

static void op_heap_free(void)
{
	struct extent *e = some_heap();

	if (w->no_heap || !e)
		return;
	log_op("free %p, %zu bytes", (void *)e->p, e->size);
	check_range("before free", e, 0, e->n, false);
	free(e->p);
	e->kind = UNUSED;
}

static void op_realloc(void)
{
	struct extent *e = some_heap();

	if (w->no_heap || !e)
		return;
	size_t size = chance(50) ? e->size + below(e->size + PAGE) : 16 + below(e->size);
	if (size > (size_t)EXTENT_PAGES * PAGE)
		size = e->size / 2 + 16;
	size &= ~(size_t)7;
	log_op("realloc %p from %zu to %zu", (void *)e->p, e->size, size);
	char *p = realloc(e->p, size);
	MUST(p, "no memory");
	log_op("  at %p", (void *)p);
	size_t n = (size + PAGE - 1) / PAGE, same = size < e->size ? n : e->n;
	/* A page that was or is cut is written anew, after what was there is checked. */
	size_t whole = (size < e->size ? size : e->size) / PAGE;
	struct extent before = *e;
	before.p = p;
	if (same > whole) {
		before.size = size < e->size ? size : e->size;
		const struct rec *r = e->recs + whole;
		for (size_t i = 0; i < (before.size - whole * PAGE) / 8; i++) {
			uint64_t seen = ((uint64_t *)(p + whole * PAGE))[i];
			if (seen != word(r, key_of(r), i) && !(seen == 0 && r->flags & R_MAYBE))
				mismatch("realloc", &before, whole, p + whole * PAGE, i, seen,
					 word(r, key_of(r), i));
		}
	}
	before.n = whole;
	check_range("realloc", &before, 0, whole, chance(50));
	e->p = p;
	e->size = size;
	e->n = n;
	if (n > whole)
		new_recs(e, whole, n, PROT_READ | PROT_WRITE);
	fill_range(e, whole, n);
}

/* --- system calls that read and write it --- */

static size_t pieces(struct iovec *iov, char *p, size_t len)
{
	size_t n = 0;

	while (len) {
		size_t k = n == 15 ? len : 1 + below(len < 40000 ? len : 40000);
		iov[n++] = (struct iovec){p, k};
		p += k;
		len -= k;
	}
	return n;
}

static void op_out(void)
{
	struct range g;
	struct iovec iov[16], mine;

	if (!pick_readable(&g, BUF_PAGES))
		return;
	unsigned how = (unsigned)below(6);
	size_t limit = how == 3 ? 16 : how >= 4 ? 8 : BUF_PAGES;
	if (g.b - g.a > limit)
		g.b = g.a + limit;
	char *p = range_p(&g);
	ssize_t len = (ssize_t)range_len(&g);
	memset(w->buf, 0x55, (size_t)len);
	static const char *const names[] = {"write", "pwritev", "process_vm_readv", "pipe", "send", "vmsplice"};
	log_op("%s from %p, %zd bytes", names[how], (void *)p, len);
	switch (how) {
	case 0:
		MUST(lseek(w->file, 0, SEEK_SET) == 0 && write(w->file, p, (size_t)len) == len, "write");
		MUST(pread(w->file, w->buf, (size_t)len, 0) == len, "pread");
		break;
	case 1:
		MUST(pwritev(w->file, iov, (int)pieces(iov, p, (size_t)len), 0) == len, "pwritev");
		MUST(pread(w->file, w->buf, (size_t)len, 0) == len, "pread");
		break;
	case 2:
		mine = (struct iovec){w->buf, (size_t)len};
		MUST(process_vm_readv(getpid(), &mine, 1, iov, pieces(iov, p, (size_t)len), 0) == len,
		     "process_vm_readv");
		break;
	case 3:
		MUST(write(w->pipe[1], p, (size_t)len) == len, "write to a pipe");
		MUST(read(w->pipe[0], w->buf, (size_t)len) == len, "read from a pipe");
		break;
	case 4:
		MUST(send(w->sock[1], p, (size_t)len, 0) == len, "send");
		MUST(recv(w->sock[0], w->buf, (size_t)len, MSG_WAITALL) == len, "recv");
		break;
	case 5:
		mine = (struct iovec){p, (size_t)len};
		MUST(vmsplice(w->pipe[1], &mine, 1, 0) == len, "vmsplice");
		for (ssize_t at = 0, k; at < len; at += k)
			MUST((k = read(w->pipe[0], w->buf + at, (size_t)(len - at))) > 0, "read");
		break;
	}
	for (size_t i = g.a; i < g.b; i++)
		check_content(names[how], g.e, i, w->buf + (i - g.a) * PAGE, true);
}

static void op_in(void)
{
	struct range g;
	struct iovec iov[16], mine;

	if (!pick_writable(&g, BUF_PAGES))
		return;
	unsigned how = (unsigned)below(6);
	size_t limit = how >= 3 && how < 5 ? 8 : BUF_PAGES;
	if (g.b - g.a > limit)
		g.b = g.a + limit;
	char *p = range_p(&g);
	ssize_t len = (ssize_t)range_len(&g), k;
	if (how == 2 && copy_mode)
		how = 0;
	static const char *const names[] = {"pread", "preadv", "process_vm_writev", "splice", "recv", "read"};

	log_op("%s to %p, %zd bytes", names[how], (void *)p, len);
	for (size_t i = g.a; i < g.b; i++) {
		new_content(g.e->recs + i);
		put_content(w->buf + (i - g.a) * PAGE, g.e->recs + i, page_len(g.e, i));
	}
	if (how != 2 && how != 4)
		MUST(pwrite(w->file, w->buf, (size_t)len, 0) == len, "pwrite");
	switch (how) {
	case 0:
		MUST(pread(w->file, p, (size_t)len, 0) == len, "pread");
		break;
	case 1:
		MUST(preadv(w->file, iov, (int)pieces(iov, p, (size_t)len), 0) == len, "preadv");
		break;
	case 2:
		mine = (struct iovec){w->buf, (size_t)len};
		MUST(process_vm_writev(getpid(), &mine, 1, iov, pieces(iov, p, (size_t)len), 0) == len,
		     "process_vm_writev");
		break;
	case 3: {
		off_t off = 0;
		for (ssize_t at = 0; at < len; at += k) {
			MUST((k = splice(w->file, &off, w->pipe[1], NULL, (size_t)(len - at), 0)) > 0,
			     "splice");
			for (ssize_t got = 0, r; got < k; got += r)
				MUST((r = read(w->pipe[0], p + at + got, (size_t)(k - got))) > 0,
				     "read");
		}
		break;
	}
	case 4:
		MUST(send(w->sock[1], w->buf, (size_t)len, 0) == len, "send");
		MUST(recv(w->sock[0], p, (size_t)len, MSG_WAITALL) == len, "recv");
		break;
	case 5:
		MUST(lseek(w->file, 0, SEEK_SET) == 0, "lseek");
		for (ssize_t at = 0; at < len; at += k)
			MUST((k = read(w->file, p + at, 1 + below((size_t)(len - at)))) > 0, "read");
		break;
	}
	check_range(names[how], g.e, g.a, g.b, true);
}

/* What can't be read can't be written by the kernel either. */
static void op_efault(void)
{
	struct range g;

	if (!pick(&g, 0, 1) || g.e->recs[g.a].prot & PROT_READ)
		return;
	log_op("write and read of %p, which is PROT_NONE", (void *)range_p(&g));
	MUST(pwrite(w->file, range_p(&g), PAGE, 0) == -1 && errno == EFAULT, "pwrite");
	MUST(pwrite(w->file, w->buf, PAGE, 0) == PAGE, "pwrite");
	MUST(pread(w->file, range_p(&g), PAGE, 0) == -1 && errno == EFAULT, "pread");
}

/* --- plain accesses --- */

static void op_read(void)
{
	struct range g;

	if (!pick_readable(&g, EXTENT_PAGES))
		return;
	log_op("read %p, %zu pages", (void *)range_p(&g), g.b - g.a);
	check_range("read", g.e, g.a, g.b, chance(30));
}

static void op_write(void)
{
	struct range g;

	if (!pick_writable(&g, EXTENT_PAGES))
		return;
	log_op("write %p, %zu pages", (void *)range_p(&g), g.b - g.a);
	fill_range(g.e, g.a, g.b);
}

static void op_poke(void)
{
	struct range g;

	if (!pick_writable(&g, EXTENT_PAGES))
		return;
	size_t step = 1 + below(600);
	log_op("short writes to %p, %zu pages by %zu", (void *)range_p(&g), g.b - g.a, step);
	for (size_t i = g.a; i < g.b; i += step) {
		poke_page(g.e, i);
		if (chance(30))
			check_range("after a short write", g.e, i, i + 1, true);
	}
}

static void op_sweep(void)
{
	log_op("read everything");
	check_all("sweep", chance(15));
	check_locked();
}

/* --- processes --- */

static void run_ops(unsigned long n);

static void open_files(void)
{
	int size = 1 << 20;

	w->file = (int)syscall(SYS_memfd_create, "model", 1u /* MFD_CLOEXEC */);
	MUST(w->file >= 0 && !pipe2(w->pipe, O_CLOEXEC) &&
		     !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, w->sock),
	     "files");
	setsockopt(w->sock[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static void close_files(void)
{
	close(w->file);
	for (unsigned i = 0; i < 2; i++) {
		close(w->pipe[i]);
		close(w->sock[i]);
	}
}

static void reap(unsigned i)
{
	int status;

	log_op("wait for child %d", (int)w->child[i]);
	while (waitpid(w->child[i], &status, 0) < 0)
		MUST(errno == EINTR, "waitpid");
	if (status)
		FAIL("child %d: %s %d", (int)w->child[i], WIFSIGNALED(status) ? "signal" : "status",
		     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	w->child[i] = 0;
}

__attribute__((noreturn)) static void child(bool was_raw)
{
	unsigned long ops = 3 + below(40);

	w->depth++;
	memset(w->child, 0, sizeof(w->child));
	w->rng = mix(w->rng ^ w->depth);
	w->no_heap = w->no_heap || (was_raw && threads > 1);
	close_files();
	open_files();
	for (struct extent *e = w->ext; e < w->ext + EXTENTS; e++)
		for (size_t i = 0; e->kind && i < e->n; i++) {
			struct rec *r = e->recs + i;

			if (r->flags & R_DONTFORK)
				r->flags = R_LOST;
			if (r->flags & R_WIPE)
				no_content(r);
			r->flags &= (uint8_t)~(R_LOCKED | R_RESIDENT);
		}
	if (chance(50))
		check_all("child", chance(20));
	run_ops(ops);
	check_all("end of a child", chance(50));
	for (unsigned i = 0; i < CHILDREN; i++)
		if (w->child[i])
			reap(i);
	_exit(0);
}

static void op_fork(void)
{
	unsigned i = 0;

	if (no_fork || w->me || w->depth >= DEPTH)
		return;
	while (i < CHILDREN && w->child[i])
		i++;
	if (i == CHILDREN)
		reap(i = (unsigned)below(CHILDREN));
	/* libc's fork wants the locks that may be held for ever there. */
	bool past = w->no_heap || raw();
	log_op("%s", past ? "raw fork" : "fork");
	pid_t pid = past ? (pid_t)past_libc(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
	MUST(pid >= 0, "fork");
	if (!pid)
		child(past);
	w->child[i] = pid;
	log_op("  child %d", (int)pid);
	switch (below(4)) {
	case 0: /* the child alone at first */
		reap(i);
		check_all("parent, after the child", chance(30));
		break;
	case 1: /* both at once */
		for (unsigned k = 0; k < 6; k++)
			op_poke();
		check_all("parent", false);
		reap(i);
		check_all("parent, after the child", false);
		break;
	default: /* the child lives on */
		break;
	}
}

static void op_exec(void)
{
	static char *const argv[] = {"true", NULL};
	static char *const env[] = {NULL};
	int status;
	pid_t pid;

	if (w->depth || w->me)
		return;
	if (chance(50)) {
		log_op("vfork and exec");
		pid = vfork();
		if (!pid) {
			execve("/bin/true", argv, env);
			_exit(1);
		}
	} else {
		log_op("posix_spawn");
		MUST(!posix_spawn(&pid, "/bin/true", NULL, NULL, argv, env), "posix_spawn");
	}
	MUST(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "a new program");
}

/* --- */

static const struct {
	void (*run)(void);
	unsigned weight;
} ops[] = {
	{op_map, 50},	      {op_map_fixed, 50},  {op_unmap, 50},	 {op_protect, 40},
	{op_unprotect, 6},    {op_advise, 120},	   {op_lock, 20},	 {op_remap_shrink, 25},
	{op_remap_grow, 25},  {op_remap_maymove, 30}, {op_remap_fixed, 40}, {op_heap_alloc, 60},
	{op_heap_free, 40},   {op_realloc, 40},	   {op_out, 80},	 {op_in, 80},
	{op_efault, 5},	      {op_read, 80},	   {op_write, 60},	 {op_poke, 80},
	{op_sweep, 12},	      {op_fork, 10},	   {op_exec, 2},
};

/* Over the budget: gives something back. */
static void shed(void)
{
	if (used_pages() <= w->budget)
		return;
	for (unsigned k = 0; k < 50 && used_pages() > w->budget / 4 * 3; k++) {
		struct range g;

		if (chance(40)) {
			op_heap_free();
		} else if (chance(50) && pick(&g, NOT_WINDOW, EXTENT_PAGES)) {
			g.a = 0;
			g.b = g.e->n;
			if (any_flag(g.e, 0, g.b, R_LOST))
				continue;
			log_op("munmap %p, %zu pages, all of it", (void *)g.e->p, g.b);
			MUST(!do_munmap(g.e->p, g.e->size), "munmap");
			gone(&g);
		} else {
			size_t a = below(WINDOW_PAGES / 2);
			g = (struct range){w->ext, a, a + WINDOW_PAGES / 2};
			if (any_flag(g.e, g.a, g.b, R_LOST))
				continue;
			log_op("munmap %p, half the window", (void *)range_p(&g));
			MUST(!do_munmap(range_p(&g), range_len(&g)), "munmap");
			gone(&g);
		}
	}
}

static void one_op(void)
{
	static unsigned sum;

	if (!sum) {
		unsigned s = 0;
		for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++)
			s += ops[i].weight;
		sum = s;
	}
	size_t at = below(sum), i = 0;
	while (at >= ops[i].weight)
		at -= ops[i++].weight;
	ops[i].run();
	shed();
}

static void run_ops(unsigned long n)
{
	/* Only in children: the threads of the first process are watched by main. */
	while (n--) {
		alarm(STUCK_SECONDS);
		one_op();
	}
}

static void *worker(void *arg)
{
	w = arg;
	open_files();
	while (time(NULL) < deadline || atomic_load(&w->ops) < least)
		one_op();
	for (unsigned i = 0; i < CHILDREN; i++)
		if (w->child[i])
			reap(i);
	log_op("the end");
	check_all("end", true);
	check_locked();
	return NULL;
}

static struct world *new_world(unsigned me, size_t size)
{
	struct world *x = unmanaged(sizeof(*x));
	struct rec *recs = unmanaged(((size_t)EXTENTS * EXTENT_PAGES + WINDOW_PAGES) * sizeof(*recs));

	x->rng = mix(seed + me);
	x->me = me;
	x->ids = me << 26;
	x->budget = size / PAGE;
	x->buf = unmanaged(BUF_PAGES * PAGE);
	for (unsigned i = 0; i < EXTENTS; i++)
		x->ext[i].recs = i ? recs + WINDOW_PAGES + (size_t)i * EXTENT_PAGES - EXTENT_PAGES : recs;
	/* On a 2 MiB boundary but for a page, and nobody else's page right behind it. */
	char *p = mmap(NULL, (WINDOW_PAGES + 1024) * PAGE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		die("no window: %s", strerror(errno));
	p = (char *)(((uintptr_t)p + (2u << 20)) & ~(uintptr_t)((2u << 20) - 1)) - PAGE;
	x->ext[0] = (struct extent){WINDOW, p, WINDOW_PAGES * PAGE, WINDOW_PAGES, recs};
	w = x;
	new_recs(x->ext, 0, WINDOW_PAGES, PROT_NONE);
	w = NULL;
	return x;
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER};
	unsigned long last[64] = {0}, total = 0;
	pthread_t t[64];

	if (argc > 2 && !strcmp(argv[argc - 2], "--raw")) {
		raw_percent = (unsigned)atoi(argv[argc - 1]);
		argc -= 2;
	}
	if (argc > 1 && !strcmp(argv[argc - 1], "--copy")) {
		copy_mode = true;
		argc--;
	}
	if (argc > 1 && !strcmp(argv[argc - 1], "--no-fork")) {
		no_fork = true;
		argc--;
	}
	if (argc > 2 && !strcmp(argv[argc - 2], "--steps")) {
		least = strtoul(argv[argc - 1], NULL, 0);
		argc -= 2;
	}
	if (argc != 4 && argc != 5)
		die("usage: %s SEED SECONDS SIZE [THREADS] [--steps N] [--no-fork] [--copy] "
		    "[--raw PERCENT]",
		    argv[0]);
	seed = strtoul(argv[1], NULL, 0);
	deadline = time(NULL) + atoi(argv[2]);
	size_t size = size_arg(argv[3]);
	threads = argc == 5 ? (unsigned)atoi(argv[4]) : 1;
	if (!threads || threads > 64)
		die("1 to 64 threads");
	printf("seed %lu\n", (unsigned long)seed);
	fflush(stdout);
	SYS(sigaction(SIGSEGV, &sa, NULL));
	SYS(sigaction(SIGBUS, &sa, NULL));
	SYS(sigaction(SIGALRM, &sa, NULL));
	for (unsigned i = 0; i < threads; i++)
		worlds[i] = new_world(i, size / threads);
	for (unsigned i = 0; i < threads; i++)
		if (pthread_create(&t[i], NULL, worker, worlds[i]))
			die("pthread_create");
	for (unsigned i = 0; i < threads; i++) {
		unsigned quiet = 0;
		struct timespec ts;

		for (;;) {
			clock_gettime(CLOCK_REALTIME, &ts);
			ts.tv_sec++;
			if (!pthread_timedjoin_np(t[i], NULL, &ts))
				break;
			quiet = last[i] == atomic_load(&worlds[i]->ops) ? quiet + 1 : 0;
			last[i] = atomic_load(&worlds[i]->ops);
			/* Longer than a child takes to say what holds it up. */
			if (quiet > STUCK_SECONDS + 20) {
				for (unsigned k = 0; k < threads; k++)
					say_tail(worlds[k]);
				w = worlds[i];
				FAIL("stuck");
			}
		}
		total += atomic_load(&worlds[i]->ops);
	}
	printf("%lu steps\n", total);
	fflush(stdout);
	write_stats();
	return 0;
}
