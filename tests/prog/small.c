/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small objects by the hundred thousand: what an in-memory database makes of malloc. Most
 * rows pass with any allocator; with engine.heap=all they live in memory that is tiered.
 * See rows.h.
 */
#include "rows.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

struct node {
	struct node *next;
	uint64_t id;
	uint32_t len;
	uint32_t version;
	uint64_t words[];
};

static size_t node_words(uint64_t id)
{
	return 1 + mix(id) % 60;
}

static void fill_node(struct node *n, uint64_t id, uint32_t version)
{
	n->id = id;
	n->version = version;
	n->len = (uint32_t)node_words(id);
	for (uint32_t i = 0; i < n->len; i++)
		n->words[i] = mix(id << 20 ^ (uint64_t)version << 8 ^ i);
}

static struct node *new_node(uint64_t id)
{
	struct node *n = malloc(sizeof(*n) + node_words(id) * 8);

	CHECK(n, "malloc of a node");
	n->next = NULL;
	fill_node(n, id, 1);
	return n;
}

static void check_node(const struct node *n, uint64_t id, uint32_t version, const char *what)
{
	CHECK(n->id == id && n->version == version && n->len == node_words(id),
	      "%s: node %lu version %u at %p is %lu version %u length %u", what, (unsigned long)id,
	      version, (const void *)n, (unsigned long)n->id, n->version, n->len);
	for (uint32_t i = 0; i < n->len; i++)
		CHECK(n->words[i] == mix(id << 20 ^ (uint64_t)version << 8 ^ i),
		      "%s: node %lu at %p, word %u", what, (unsigned long)id, (const void *)n, i);
}

/* Nodes of about 270 bytes: so many fill the size. */
static size_t nodes_in(size_t size)
{
	return size / 288;
}

/*
 * A table, chained. Neighbours in number are neighbours in memory, in two halves: in order,
 * two streams run through it. A lookup at random fetches a whole block and is slow.
 */
struct table {
	size_t n, nbuckets;
	struct node **bucket;
};

static struct node **bucket_of(struct table *t, uint64_t id)
{
	return t->bucket + id % t->nbuckets;
}

static void insert(struct table *t, uint64_t id)
{
	struct node *n = new_node(id), **b = bucket_of(t, id);

	n->next = *b;
	*b = n;
}

static struct node **find(struct table *t, uint64_t id)
{
	struct node **link = bucket_of(t, id);

	while (*link && (*link)->id != id)
		link = &(*link)->next;
	return link;
}

static struct table *table_of(size_t n)
{
	struct table *t = calloc(1, sizeof(*t));

	t->n = n;
	t->nbuckets = n / 2 + 1;
	t->bucket = calloc(t->nbuckets, sizeof(*t->bucket));
	for (size_t i = 0; i < n; i++)
		insert(t, i);
	return t;
}

static void check_table(struct table *t, uint32_t version, const char *what)
{
	for (size_t i = 0; i < t->n; i++) {
		struct node *n = *find(t, i);
		CHECK(n, "%s: node %zu is gone", what, i);
		check_node(n, i, version, what);
	}
}

static void free_table(struct table *t)
{
	for (size_t i = 0; i < t->nbuckets; i++)
		for (struct node *n = t->bucket[i], *next; n; n = next) {
			next = n->next;
			free(n);
		}
	free(t->bucket);
	free(t);
}

static void row_table(size_t size)
{
	struct table *t = table_of(nodes_in(size));

	check_table(t, 1, "as built");
	for (uint64_t i = 0; i < 1000; i++) {
		uint64_t id = mix(i) % t->n;
		check_node(*find(t, id), id, 1, "at random");
	}
	for (size_t i = 0; i < t->n; i++)
		fill_node(*find(t, i), i, 2);
	check_table(t, 2, "rewritten");
	for (size_t i = 0; i < t->n; i += 2) {
		struct node **link = find(t, i), *n = *link;
		*link = n->next;
		free(n);
	}
	for (size_t i = 0; i < t->n; i += 2)
		insert(t, i);
	for (size_t i = 0; i < t->n; i++)
		check_node(*find(t, i), i, i & 1 ? 2 : 1, "after holes");
	free_table(t);
}

static void row_list(size_t size)
{
	struct node *head = NULL, **end = &head;
	size_t n = nodes_in(size);

	for (size_t i = 0; i < n; i++) {
		*end = new_node(i);
		end = &(*end)->next;
	}
	for (int round = 0; round < 3; round++) {
		size_t i = 0;
		for (struct node *p = head; p; p = p->next)
			check_node(p, i++, 1, "list");
		CHECK(i == n, "%zu of %zu nodes", i, n);
	}
	while (head) {
		struct node *next = head->next;
		free(head);
		head = next;
	}
}

/* Vectors that grow in turns: each step moves some that are cold. */
static void row_realloc(size_t size)
{
	size_t n = size / (96u << 10);
	uint64_t **v = calloc(n, sizeof(*v));

	for (size_t len = 2, old = 0; len * 8 <= 72u << 10; old = len, len = len * 5 / 3 + 1)
		for (size_t i = 0; i < n; i++) {
			v[i] = realloc(v[i], len * 8);
			CHECK(v[i], "realloc");
			for (size_t k = 0; k < old; k += old / 8 + 1)
				CHECK(v[i][k] == mix(i << 32 | k), "vector %zu, word %zu", i, k);
			for (size_t k = old; k < len; k++)
				v[i][k] = mix(i << 32 | k);
		}
	for (size_t i = 0; i < n; i++) {
		size_t len = malloc_usable_size(v[i]) / 8;
		CHECK(len * 8 >= 26u << 10, "usable size %zu", len * 8);
		v[i] = realloc(v[i], 200);
		for (size_t k = 0; k < 25; k++)
			CHECK(v[i][k] == mix(i << 32 | k), "vector %zu shrunk, word %zu", i, k);
		free(v[i]);
	}
	free(v);
}

static void nap(unsigned ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000l}, NULL);
}

/*
 * Everything is freed, allocation goes on for long enough that jemalloc gives pages back,
 * and calloc gets some of them again.
 */
static void row_calloc(size_t size)
{
	static const size_t bytes[] = {24, 200, 3000, 9000, 50000, 300000, 1500000};
	size_t total = size / 3;

	for (size_t b = 0; b < sizeof(bytes) / sizeof(*bytes); b++) {
		size_t n = total / bytes[b];
		unsigned char **p = malloc(n * sizeof(*p));

		for (int round = 0; round < 2; round++) {
			for (size_t i = 0; i < n; i++) {
				p[i] = calloc(1, bytes[b]);
				CHECK(p[i], "calloc");
				for (size_t k = 0; k < bytes[b]; k++)
					CHECK(!p[i][k], "%zu bytes, %zu, round %d: byte %zu is %02x",
					      bytes[b], i, round, k, p[i][k]);
				memset(p[i], 0xa5, bytes[b]);
			}
			for (size_t i = 0; i < n; i++)
				free(p[i]);
			/* Decay goes by the clock and by calls. */
			for (int i = 0; i < 40; i++) {
				nap(10);
				for (int k = 0; k < 300; k++)
					free(memset(malloc(64 + (size_t)k), 1, 64));
			}
		}
		free(p);
	}
}

static void row_usable(size_t size)
{
	(void)size;
	for (size_t bytes = 1; bytes < 200000; bytes += 1 + bytes / 7) {
		unsigned char *p = malloc(bytes);
		size_t usable = malloc_usable_size(p);

		CHECK(usable >= bytes && usable <= bytes + bytes / 4 + 4096, "%zu for %zu", usable, bytes);
		memset(p, 7, usable);
		p = realloc(p, usable + 1);
		for (size_t i = 0; i < usable; i++)
			CHECK(p[i] == 7, "byte %zu", i);
		free(p);
	}
	char *s = strdup("kept"), *t = strndup("kept or not", 4);
	CHECK(!strcmp(s, "kept") && !strcmp(t, "kept"), "%s %s", s, t);
	free(s);
	free(t);
	void *volatile z = malloc(0);
	CHECK(z, "malloc(0)");
	free(z);
}

/* Mailboxes between threads: whoever finds a node in one checks and frees it. */
enum { BOXES = 4096, THREADS = 6 };
static struct node *_Atomic box[BOXES];
static _Atomic bool stop;
static _Atomic uint64_t next_id;

static void swap_one(uint64_t *seed)
{
	*seed = mix(*seed);
	struct node *n = new_node(atomic_fetch_add(&next_id, 1));
	n = atomic_exchange(&box[*seed % BOXES], n);
	if (n) {
		check_node(n, n->id, 1, "of another thread");
		free(n);
	}
}

static void empty_boxes(void)
{
	for (size_t i = 0; i < BOXES; i++) {
		struct node *n = atomic_exchange(&box[i], NULL);
		if (n)
			check_node(n, n->id, 1, "left behind");
		free(n);
	}
}

static void *swap_some(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	for (int i = 0; i < 3000; i++)
		swap_one(&seed);
	return NULL;
}

/* While a table is cold beside them, also threads that come and go. */
static void row_threads(size_t size)
{
	struct table *t = table_of(nodes_in(size));
	pthread_t id[THREADS];

	for (unsigned round = 0; round < 8; round++) {
		for (uintptr_t i = 0; i < THREADS; i++)
			CHECK(!pthread_create(&id[i], NULL, swap_some, (void *)(i + round * 100)), "thread");
		for (size_t i = 0; i < THREADS; i++)
			pthread_join(id[i], NULL);
	}
	empty_boxes();
	check_table(t, 1, "beside threads");
	free_table(t);
}

/*
 * Threads that allocate, free and make the heap grow and shrink while another forks, again
 * and again. Each child allocates, too, and checks what it got. A hang is what is looked for.
 */
static void *storm(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	while (!stop) {
		char *p[24];
		for (size_t i = 0; i < 24; i++) {
			seed = mix(seed);
			size_t bytes = seed % 5 ? seed % 3000 + 16 : seed % 400000 + 16;
			p[i] = malloc(bytes);
			CHECK(p[i], "malloc");
			p[i][0] = p[i][bytes - 1] = (char)i;
		}
		for (size_t i = 0; i < 24; i++) {
			CHECK(p[i][0] == (char)i, "content");
			free(p[i]);
		}
		swap_one(&seed);
	}
	return NULL;
}

static void fork_in_storm(size_t size, unsigned forks)
{
	struct table *t = table_of(nodes_in(size));
	pthread_t id[3];
	uint64_t seed = 5;

	for (uintptr_t i = 0; i < 3; i++)
		CHECK(!pthread_create(&id[i], NULL, storm, (void *)i), "thread");
	for (unsigned round = 0; round < forks; round++) {
		pid_t pid = SYS(fork());
		if (!pid) {
			for (size_t i = round % 17; i < t->n; i += t->n / 50 + 1)
				check_node(*find(t, i), i, 1, "in the child");
			for (int i = 0; i < 300; i++)
				swap_one(&seed);
			struct table *u = table_of(2000);
			check_table(u, 1, "of the child");
			free_table(u);
			_exit(0);
		}
		expect_child(pid, "child");
		if (round % 16 == 0)
			check_table(t, 1, "in the parent");
	}
	stop = true;
	for (size_t i = 0; i < 3; i++)
		pthread_join(id[i], NULL);
	empty_boxes();
	check_table(t, 1, "in the end");
	free_table(t);
}

static void row_fork_storm(size_t size)
{
	fork_in_storm(size / 16, 100);
}

static void row_fork_cold(size_t size)
{
	fork_in_storm(size, 6);
}

/* The child changes what the parent keeps, and the other way round. */
static void row_fork_table(size_t size)
{
	struct table *t = table_of(nodes_in(size));

	for (int round = 0; round < 3; round++) {
		uint32_t before = round ? 3 : 1;
		pid_t pid = SYS(fork());
		if (!pid) {
			check_table(t, before, "child");
			for (size_t i = 0; i < t->n; i++)
				fill_node(*find(t, i), i, 2);
			check_table(t, 2, "the child's");
			free_table(t);
			_exit(0);
		}
		for (size_t i = 0; i < t->n; i++)
			fill_node(*find(t, i), i, 3);
		expect_child(pid, "child");
		check_table(t, 3, "the parent's");
	}
	free_table(t);
}

/* What the kernel gets from small objects: buffers, and the stack of a signal handler. */
static _Atomic int handled;

static void handler(int sig)
{
	char deep[4096];

	memset(deep, sig, sizeof(deep));
	handled += deep[100] == sig;
}

static void row_kernel(size_t size)
{
	enum { N = 64, BYTES = 2000 };
	struct table *t = table_of(nodes_in(size));
	unsigned char *p[N];
	int fd[2];
	stack_t alt = {.ss_sp = malloc(64u << 10), .ss_size = 64u << 10};

	SYS(sigaltstack(&alt, NULL));
	SYS(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = handler, .sa_flags = SA_ONSTACK},
		      NULL));
	SYS(pipe(fd));
	for (size_t i = 0; i < N; i++)
		p[i] = memset(malloc(BYTES), (int)i + 1, BYTES);
	check_table(t, 1, "other memory");
	for (size_t i = 0; i < N; i++) {
		unsigned char *q = malloc(BYTES);
		CHECK(SYS(write(fd[1], p[i], BYTES)) == BYTES, "write");
		CHECK(SYS(read(fd[0], q, BYTES)) == BYTES, "read");
		CHECK(!memcmp(p[i], q, BYTES), "buffer %zu", i);
		free(q);
		free(p[i]);
	}
	raise(SIGUSR1);
	CHECK(handled == 1, "handler");
	SYS(sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL));
	free(alt.ss_sp);
	free_table(t);
}

/* Pages of the heap that the program locks or protects stay right among the others. */
static void row_locked(size_t size)
{
	struct table *t = table_of(nodes_in(size) / 2);
	char *p = NULL, *q = NULL;

	CHECK(!posix_memalign((void **)&p, PAGE, 3 * PAGE), "posix_memalign");
	CHECK(!posix_memalign((void **)&q, PAGE, 3 * PAGE), "posix_memalign");
	fill_pages(p, 0, 3, 1);
	fill_pages(q, 0, 3, 1);
	bool locked = !mlock(p + PAGE, PAGE);
	SYS(mprotect(q + PAGE, PAGE, PROT_READ));
	struct table *u = table_of(nodes_in(size) / 2);
	check_table(t, 1, "first");
	check_table(u, 1, "second");
	check_pages(p, 0, 3, 1, "locked");
	check_pages(q, 0, 3, 1, "protected");
	SYS(mprotect(q + PAGE, PAGE, PROT_READ | PROT_WRITE));
	fill_pages(q, 0, 3, 2);
	check_pages(q, 0, 3, 2, "writable again");
	if (locked)
		SYS(munlock(p + PAGE, PAGE));
	free(p);
	free(q);
	free_table(t);
	check_table(u, 1, "left");
	free_table(u);
}

static const struct row rows[] = {
	{"table", row_table, true},
	{"list", row_list, true},
	{"realloc", row_realloc, true},
	{"calloc", row_calloc, false},
	{"usable", row_usable, false},
	{"threads", row_threads, true},
	{"fork-storm", row_fork_storm, false},
	{"fork-cold", row_fork_cold, true},
	{"fork-table", row_fork_table, true},
	{"kernel", row_kernel, true},
	{"locked", row_locked, true},
};

ROWS_MAIN(rows)
