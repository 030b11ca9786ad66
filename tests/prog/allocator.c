/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program with an allocator of its own: it defines malloc and free, and holds a lock while
 * it maps memory, as such allocators do. libc's allocations (threads, loaded
 * libraries) come from here as well, and so do those of whatever is preloaded. See rows.h.
 */
#include "rows.h"

#include <dlfcn.h>
#include <pthread.h>

/* --- the allocator: classes of powers of two, a list of free objects each --- */

#define CHUNK ((size_t)8 << 20)
#define CLASSES 40
#define MAGIC 0x616c6c6f63617465ull

struct header {
	uint64_t magic; /* ^ its address: what is freed must have come from here */
	uint32_t class, offset;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *freed[CLASSES];
static char *chunk, *chunk_end;

static void before(void)
{
	pthread_mutex_lock(&lock);
}

static void after(void)
{
	pthread_mutex_unlock(&lock);
}

static void after_child(void)
{
	pthread_mutex_init(&lock, NULL);
}

__attribute__((constructor)) static void start(void)
{
	pthread_atfork(before, after, after_child);
}

static void *map_more(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void *take(unsigned class)
{
	size_t size = (size_t)1 << class;
	void *p = freed[class];

	if (p) {
		freed[class] = *(void **)p;
		return p;
	}
	if (size >= CHUNK)
		return map_more(size);
	if ((size_t)(chunk_end - chunk) < size) {
		char *more = map_more(CHUNK);
		if (!more)
			return NULL;
		chunk = more;
		chunk_end = more + CHUNK;
	}
	p = chunk;
	chunk += size;
	return p;
}

static struct header *header_of(const void *p)
{
	return (struct header *)((uintptr_t)p - sizeof(struct header));
}

static void *get(size_t align, size_t size)
{
	size_t extra = sizeof(struct header) + (align > 16 ? align : 0);
	unsigned class = 5;

	if (size > PTRDIFF_MAX / 2 || align > CHUNK)
		return NULL;
	while (((size_t)1 << class) < size + extra)
		class++;
	pthread_mutex_lock(&lock);
	char *base = take(class);
	pthread_mutex_unlock(&lock);
	if (!base) {
		errno = ENOMEM;
		return NULL;
	}
	uintptr_t p = (uintptr_t)base + sizeof(struct header);
	if (align > 16)
		p = (p + align - 1) & ~(align - 1);
	*header_of((void *)p) = (struct header){MAGIC ^ p, class, (uint32_t)(p - (uintptr_t)base)};
	return (void *)p;
}

static size_t room(const void *p)
{
	const struct header *h = header_of(p);

	if (h->magic != (MAGIC ^ (uintptr_t)p)) {
		static const char text[] = "freed, but not from this allocator\n";
		(void)!write(2, text, sizeof(text) - 1);
		_exit(1);
	}
	return ((size_t)1 << h->class) - h->offset;
}

void *malloc(size_t size)
{
	return get(16, size);
}

void free(void *p)
{
	if (!p)
		return;
	room(p);
	struct header h = *header_of(p);
	void **base = (void **)((char *)p - h.offset);
	header_of(p)->magic = 0;
	pthread_mutex_lock(&lock);
	*base = freed[h.class];
	freed[h.class] = base;
	pthread_mutex_unlock(&lock);
}

void *calloc(size_t n, size_t size)
{
	size_t total;
	void *p = __builtin_mul_overflow(n, size, &total) ? NULL : get(16, total);
	/* Or this would be a calloc itself. */
	void *(*volatile set)(void *, int, size_t) = memset;

	return p ? set(p, 0, total) : NULL;
}

void *realloc(void *p, size_t size)
{
	void *q = get(16, size);

	if (!p || !q)
		return q;
	memcpy(q, p, room(p) < size ? room(p) : size);
	free(p);
	return q;
}

int posix_memalign(void **out, size_t align, size_t size)
{
	*out = get(align, size);
	return *out ? 0 : ENOMEM;
}

void *aligned_alloc(size_t align, size_t size)
{
	return get(align, size);
}

void *memalign(size_t align, size_t size)
{
	return get(align, size);
}

size_t malloc_usable_size(void *p)
{
	return p ? room(p) : 0;
}

/* --- its use --- */

struct piece {
	uint64_t id, words;
	uint64_t word[];
};

static struct piece *new_piece(uint64_t id)
{
	uint64_t words = 100 + mix(id) % 3000;
	struct piece *p = malloc(sizeof(*p) + words * 8);

	CHECK(p, "malloc");
	p->id = id;
	p->words = words;
	for (uint64_t i = 0; i < words; i++)
		p->word[i] = mix(id << 20 ^ i);
	return p;
}

static void check_piece(const struct piece *p, uint64_t id, const char *what)
{
	CHECK(p->id == id && p->words == 100 + mix(id) % 3000, "%s: piece %lu is %lu, %lu words", what,
	      (unsigned long)id, (unsigned long)p->id, (unsigned long)p->words);
	for (uint64_t i = 0; i < p->words; i++)
		CHECK(p->word[i] == mix(id << 20 ^ i), "%s: piece %lu, word %lu", what,
		      (unsigned long)id, (unsigned long)i);
}

struct job {
	uint64_t first, n;
	struct piece **piece;
	pthread_t id;
};

/* Pieces of 18 KiB as an average in classes of up to 32: so many fill the size. */
static uint64_t pieces_in(size_t size)
{
	return size / (22u << 10);
}

static void *fill(void *arg)
{
	struct job *j = arg;

	j->piece = calloc(j->n, sizeof(*j->piece));
	for (uint64_t i = 0; i < j->n; i++)
		j->piece[i] = new_piece(j->first + i);
	return NULL;
}

static void *use(void *arg)
{
	struct job *j = arg;

	for (uint64_t i = 0; i < j->n; i++)
		check_piece(j->piece[i], j->first + i, "thread");
	for (uint64_t i = 0; i < j->n; i += 3) {
		free(j->piece[i]);
		j->piece[i] = new_piece(j->first + i);
	}
	for (uint64_t i = 0; i < j->n; i++)
		check_piece(j->piece[i], j->first + i, "thread, after free");
	return NULL;
}

static void run_jobs(struct job *job, unsigned n, void *(*fn)(void *))
{
	for (unsigned i = 0; i < n; i++)
		CHECK(!pthread_create(&job[i].id, NULL, fn, job + i), "thread");
	for (unsigned i = 0; i < n; i++)
		pthread_join(job[i].id, NULL);
}

static void row_threads(size_t size)
{
	enum { N = 3 };
	struct job job[N];

	for (unsigned i = 0; i < N; i++)
		job[i] = (struct job){i * 1000000ull, pieces_in(size) / N, NULL, 0};
	run_jobs(job, N, fill);
	run_jobs(job, N, use);
	/* Two rounds of new threads, whose libraries' and stacks' books may be cold by now. */
	run_jobs(job, N, use);
}

static struct job filled_job(size_t size)
{
	struct job j = {0, pieces_in(size), NULL, 0};

	fill(&j);
	return j;
}

/* Children that use what is there, allocate more than the budget, and have children. */
static void row_fork(size_t size)
{
	struct job j = filled_job(size / 2);

	for (unsigned round = 0; round < 2; round++) {
		pid_t pid = SYS(fork());
		if (!pid) {
			struct job more = {5000000, pieces_in(size / 4), NULL, 0};
			run_jobs(&more, 1, fill);
			use(&j);
			pid_t pid2 = SYS(fork());
			if (!pid2) {
				use(&more);
				_exit(0);
			}
			expect_child(pid2, "grandchild");
			use(&more);
			_exit(0);
		}
		expect_child(pid, "child");
	}
	use(&j);
}

/* At every stage of growth, also while the memory just becomes too much. */
static void row_fork_growing(size_t size)
{
	struct job j[16];

	for (unsigned i = 0; i < 16; i++) {
		j[i] = filled_job(size / 32);
		pid_t pid = SYS(fork());
		if (!pid) {
			struct job more = filled_job(size / 32);
			use(&more);
			use(j + i / 2);
			_exit(0);
		}
		expect_child(pid, "child");
	}
	for (unsigned i = 0; i < 16; i++)
		use(j + i);
}

/* While others are in the allocator. */
static void row_fork_threads(size_t size)
{
	struct job j[2] = {filled_job(size / 4), filled_job(size / 4)};

	for (unsigned i = 0; i < 2; i++)
		CHECK(!pthread_create(&j[i].id, NULL, use, j + i), "thread");
	for (unsigned round = 0; round < 3; round++) {
		pid_t pid = SYS(fork());
		if (!pid) {
			struct job more = filled_job(size / 8);
			use(&more);
			_exit(0);
		}
		expect_child(pid, "child");
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(j[i].id, NULL);
	use(j);
	use(j + 1);
}

/* What libc makes by malloc is this allocator's to free. */
static void row_copies(size_t size)
{
	char *(*volatile duplicate)(const char *) = strdup;

	(void)size;
	for (unsigned i = 0; i < 1000; i++) {
		char *a = duplicate("some text"), *b = strndup("some more", 4), *c, *line = NULL;
		size_t room_of_line = 0;
		int *v = reallocarray(NULL, 10, sizeof(*v));
		CHECK(!strcmp(a, "some text") && !strcmp(b, "some"), "'%s', '%s'", a, b);
		v[9] = 9;
		v = reallocarray(v, 1000, sizeof(*v));
		CHECK(v[9] == 9, "reallocarray");
		CHECK(asprintf(&c, "%u", i) > 0 && atoi(c) == (int)i, "asprintf");
		FILE *f = fmemopen(a, 9, "r");
		CHECK(f && getline(&line, &room_of_line, f) == 9, "getline");
		fclose(f);
		free(a), free(b), free(c), free(v), free(line);
	}
}

/* libc's and the linker's data are among what is far; new threads and libraries need them. */
static void row_libraries(size_t size)
{
	static const char *const name[] = {"libm.so.6", "libstdc++.so.6", "libz.so.1", "libresolv.so.2"};
	struct job j = filled_job(size / 2);

	for (unsigned i = 0; i < sizeof(name) / sizeof(name[0]); i++) {
		void *dl = dlopen(name[i], RTLD_LAZY);
		struct job more = {9000000, pieces_in(size / 8), NULL, 0};
		run_jobs(&more, 1, fill);
		use(&j);
		run_jobs(&more, 1, use);
		if (dl)
			dlclose(dl);
	}
}

static void *nothing(void *arg)
{
	return arg;
}

/* A process ends with its last thread, though something may be waiting in it. */
static void row_last_thread(size_t size)
{
	(void)size;
	pid_t pid = SYS(fork());
	if (!pid) {
		pthread_t t;
		alarm(60);
		CHECK(!pthread_create(&t, NULL, nothing, NULL), "thread");
		pthread_detach(t);
		pthread_exit(NULL);
	}
	expect_child(pid, "without a main thread");
}

/* Never a lot of memory, and setuid as ever. */
static void row_setuid(size_t size)
{
	(void)size;
	if (geteuid())
		skip("not root");
	for (unsigned i = 0; i < 8; i++) {
		pid_t pid = SYS(fork());
		if (!pid) {
			alarm(60);
			SYS(setgid(65534));
			SYS(setuid(65534));
			_exit(0);
		}
		expect_child(pid, "child");
	}
}

static const struct row rows[] = {
	{"threads", row_threads, true},
	{"fork", row_fork, true},
	{"fork-growing", row_fork_growing, true},
	{"fork-threads", row_fork_threads, true},
	{"copies", row_copies, false},
	{"libraries", row_libraries, true},
	{"last-thread", row_last_thread, false},
	{"setuid", row_setuid, false},
};

ROWS_MAIN(rows)
