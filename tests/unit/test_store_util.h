/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of providers and store share: finding the providers, waiting for
 * one transfer, a run of random transfers against a model in memory, and an
 * nbdkit server of our own. Header only; each test is one thread unless it says so.
 */
#ifndef TEST_STORE_UTIL_H
#define TEST_STORE_UTIL_H

#define _GNU_SOURCE 1
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../include/emfatier-provider.h"

#define PAGE 4096u
#define KIB 1024u
#define MIB (1024u * 1024u)
#define LIMIT_MS 20000u /* of one wait: something hangs */

static inline uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline void *pages(size_t length)
{
	void *p = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static inline void fill(void *buf, size_t length, uint64_t seed)
{
	uint64_t *word = buf, state = seed * 2 + 1;

	for (size_t i = 0; i < length / sizeof(*word); i++)
		word[i] = random_next(&state);
}

/* $EMF_TEST_PROVIDERS, or "providers" in a directory over the test. */
static inline const char *providers_dir(void)
{
	static char dir[PATH_MAX + 16];
	char exe[PATH_MAX] = "";

	if (getenv("EMF_TEST_PROVIDERS"))
		return getenv("EMF_TEST_PROVIDERS");
	if (readlink("/proc/self/exe", exe, sizeof(exe) - 1) < 0)
		return NULL;
	for (char *slash; (slash = strrchr(exe, '/'));) {
		*slash = '\0';
		snprintf(dir, sizeof(dir), "%s/providers", exe);
		if (!access(dir, R_OK))
			return dir;
	}
	return NULL;
}

static inline const struct emf_provider *provider(const char *name)
{
	char path[PATH_MAX + 64];
	const struct emf_provider *p;
	void *dl;

	assert_non_null(providers_dir());
	snprintf(path, sizeof(path), "%s/%s.so", providers_dir(), name);
	dl = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!dl)
		fail_msg("%s", dlerror());
	p = dlsym(dl, "emf_provider");
	assert_non_null(p);
	assert_int_equal(p->abi, EMF_PROVIDER_ABI);
	assert_string_equal(p->name, name);
	return p;
}

static inline struct emf_backend *open_ok(const char *name, const char *uri, unsigned timeout_ms)
{
	struct emf_backend *be = NULL;
	char err[512] = "";
	int rc = provider(name)->open(uri, timeout_ms, &be, err, sizeof(err));

	if (rc)
		fail_msg("%s: %s (%d)", uri, err, rc);
	return be;
}

/* Must fail with rc (0: any) and one line that has `word` in it. */
static inline void open_fails(const char *name, const char *uri, unsigned timeout_ms, int rc,
			      const char *word)
{
	struct emf_backend *be = NULL;
	char err[512] = "";
	int got = provider(name)->open(uri, timeout_ms, &be, err, sizeof(err));

	if (got >= 0 || (rc && got != rc) || !strstr(err, word) || strchr(err, '\n'))
		fail_msg("%s: got %d '%s', expected %d '%s'", uri, got, err, rc, word);
}

static inline struct emf_queue *queue_ok(struct emf_backend *be, enum emf_queue_kind kind,
					 unsigned depth)
{
	struct emf_queue *q = NULL;

	assert_int_equal(be->ops->queue_open(be, kind, depth, &q), 0);
	return q;
}

/* Sleeps until the queue has something to do, then polls it. */
static inline int turn(struct emf_queue *q)
{
	struct pollfd fds[64];
	int n = q->ops->pollfds(q, fds, 64);

	if (n > 0 && poll(fds, (nfds_t)n, (int)LIMIT_MS) == 0)
		return -ETIMEDOUT;
	return q->ops->poll(q);
}

static inline void flag_done(struct emf_io *io)
{
	*(bool *)io->user = true;
}

static inline int submit_wait(struct emf_queue *q, struct emf_io *io)
{
	uint64_t limit = now_ms() + LIMIT_MS;
	int rc;

	while ((rc = q->ops->submit(q, io)) == -EAGAIN && now_ms() < limit)
		turn(q);
	return rc;
}

/* One transfer, waited for; its status. */
static inline int transfer(struct emf_queue *q, enum emf_op op, uint64_t offset, size_t length,
			   void *buf)
{
	volatile bool ended = false;
	uint64_t limit = now_ms() + LIMIT_MS;
	struct emf_io io = {
		.op = op,
		.offset = offset,
		.length = length,
		.buf = buf,
		.done = flag_done,
		.user = (void *)(uintptr_t)&ended,
	};

	if (submit_wait(q, &io))
		fail_msg("submit failed");
	assert_false(ended); /* never inside the submit */
	while (!ended)
		if (turn(q) < 0 || now_ms() > limit)
			fail_msg("transfer hangs");
	return io.status;
}

/*
 * Random transfers, `lanes` at once, each lane in a range of its own, against a
 * model. With `slots` a lane is one 2 MiB slot, and a write replaces all of it, as
 * the store has it: then a read takes some whole clusters or all that was written.
 * `changing` (may be NULL) is told when a write or a trim there begins and when it has ended.
 */
struct model {
	struct emf_queue *q;
	uint64_t base;	  /* of lane 0 */
	size_t lane_size; /* multiple of a page */
	unsigned lanes;
	unsigned steps; /* transfers in all */
	uint64_t seed;
	bool slots;
	void (*changing)(uint64_t offset, bool begins);
	/* state */
	unsigned char *want, *known; /* content; for every page: is it defined */
	unsigned pending, started;
	unsigned errors;
};

struct lane {
	struct model *m;
	struct emf_io io;
	unsigned char *buf;
	unsigned index;
	size_t from, to; /* with slots: what is written */
};

static inline void lane_next(struct lane *l);

static inline void lane_done(struct emf_io *io)
{
	struct lane *l = io->user;
	struct model *m = l->m;
	size_t at = (size_t)(io->offset - m->base);

	m->pending--;
	if (m->changing && io->op != EMF_READ)
		m->changing(io->offset, false);
	if (io->status) {
		m->errors++;
		print_error("op %d at %llu+%zu: %d\n", (int)io->op, (unsigned long long)io->offset,
			    io->length, io->status);
		return;
	}
	for (size_t i = 0; i < io->length; i += PAGE) {
		unsigned char *known = &m->known[(at + i) / PAGE];

		if (io->op == EMF_WRITE) {
			memcpy(m->want + at + i, l->buf + i, PAGE);
			*known = 1;
		} else if (io->op == EMF_TRIM) {
			*known = 0;
		} else if (*known && memcmp(m->want + at + i, l->buf + i, PAGE)) {
			m->errors++;
			print_error("wrong content at %llu\n",
				    (unsigned long long)(io->offset + i));
		}
	}
	lane_next(l);
}

static inline void lane_range(struct lane *l, size_t *from, size_t *to, uint64_t r)
{
	size_t npages = l->m->lane_size / PAGE, a = r % npages, b = (r >> 32) % npages;

	*from = (a < b ? a : b) * PAGE;
	*to = (a < b ? b : a) * PAGE + PAGE;
}

static inline void lane_next(struct lane *l)
{
	struct model *m = l->m;
	uint64_t r = random_next(&m->seed);
	size_t from, to, base = l->index * m->lane_size;

	if (m->started >= m->steps)
		return;
	m->started++;
	l->io.op = r % 8 < 4 ? EMF_READ : r % 8 < 7 ? EMF_WRITE : EMF_TRIM;
	lane_range(l, &from, &to, random_next(&m->seed));
	if (m->slots) {
		const size_t c = 64 * KIB;

		if (l->io.op == EMF_READ && l->from == l->to)
			l->io.op = EMF_WRITE;
		if (l->io.op == EMF_WRITE) {
			l->from = from;
			l->to = to;
		} else if (l->io.op == EMF_TRIM) {
			from = 0;
			to = m->lane_size;
			l->from = l->to = 0;
		} else { /* widened to clusters, cut to what was written */
			from = from / c * c > l->from ? from / c * c : l->from;
			to = (to + c - 1) / c * c < l->to ? (to + c - 1) / c * c : l->to;
			if (from >= to) {
				from = l->from;
				to = l->to;
			}
		}
	}
	l->io.offset = m->base + base + from;
	l->io.length = to - from;
	l->io.buf = l->buf;
	l->io.done = lane_done;
	l->io.user = l;
	if (l->io.op == EMF_WRITE)
		fill(l->buf, l->io.length, r);
	else if (l->io.op == EMF_READ)
		memset(l->buf, 0xee, l->io.length);
	m->pending++;
	if (m->changing && l->io.op != EMF_READ)
		m->changing(l->io.offset, true);
	if (m->q->ops->submit(m->q, &l->io)) { /* depth == lanes: there is room */
		m->pending--;
		m->errors++;
		print_error("submit refused\n");
	}
}

/* The number of errors. */
static inline unsigned model_run(struct model *m)
{
	size_t total = m->lanes * m->lane_size;
	struct lane *lane = calloc(m->lanes, sizeof(*lane));
	unsigned char *buf = pages(total);
	uint64_t limit = now_ms() + 60000;

	m->want = pages(total);
	m->known = calloc(total / PAGE, 1);
	m->pending = m->started = m->errors = 0;
	for (unsigned i = 0; i < m->lanes; i++) {
		lane[i] = (struct lane){ .m = m, .buf = buf + i * m->lane_size, .index = i };
		lane_next(&lane[i]);
	}
	while (m->pending) {
		if (turn(m->q) < 0 || now_ms() > limit) {
			print_error("hangs with %u in flight\n", m->pending);
			m->errors++;
			break;
		}
	}
	munmap(m->want, total);
	free(m->known);
	munmap(buf, total);
	free(lane);
	return m->errors;
}

struct model_thread {
	struct emf_backend *be;
	enum emf_queue_kind kind;
	struct model m;
	pthread_t thread;
};

static inline void *model_thread(void *arg)
{
	struct model_thread *t = arg;

	t->m.errors = 1;
	if (t->be->ops->queue_open(t->be, t->kind, t->m.lanes, &t->m.q))
		return NULL;
	model_run(&t->m);
	t->m.q->ops->close(t->m.q);
	return NULL;
}

/* The same in four threads at once, each with a queue and lanes of its own. */
static inline void model_run_threads(struct emf_backend *be, const struct model *m)
{
	struct model_thread t[4];

	for (unsigned i = 0; i < 4; i++) {
		t[i] = (struct model_thread){ .be = be, .m = *m };
		t[i].kind = i % 2 ? EMF_QUEUE_BULK : EMF_QUEUE_DEMAND;
		t[i].m.base = (uint64_t)i * m->lanes * m->lane_size;
		t[i].m.seed += i;
		assert_int_equal(pthread_create(&t[i].thread, NULL, model_thread, &t[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i].thread, NULL);
		assert_int_equal(t[i].m.errors, 0);
	}
}

/* --- a server --- */

struct server {
	pid_t pid;
	char dir[64];
	char socket[96];
	char ready[96]; /* nbdkit writes it when it accepts connections */
	char uri[160];
};

static inline bool have_nbdkit(void)
{
	return !access("/usr/sbin/nbdkit", X_OK) || !access("/usr/bin/nbdkit", X_OK) ||
	       !access("/usr/local/sbin/nbdkit", X_OK);
}

#define NEED_NBDKIT()                                                                              \
	do {                                                                                       \
		if (!have_nbdkit()) {                                                              \
			print_message("SKIPPED: nbdkit is not installed\n");                       \
			skip();                                                                    \
		}                                                                                  \
	} while (0)

/* nbdkit with these words after its options. Ends with this process at latest. */
#define server_start(s, ...) server_spawn(s, (const char *const[]){ __VA_ARGS__, NULL })

/* Once more at the same place, after server_kill. */
#define server_again(s, ...) server_exec(s, (const char *const[]){ __VA_ARGS__, NULL })

static inline void server_exec(struct server *s, const char *const *words)
{
	const char *argv[24] = { "nbdkit", "-f", "-U", s->socket, "-P", s->ready };
	uint64_t limit = now_ms() + 5000;

	for (int i = 0; i < 17 && words[i]; i++)
		argv[6 + i] = words[i];
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (!s->pid) {
		setenv("PATH", "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin", 1);
		unsetenv("LD_PRELOAD");
		if (!getenv("EMF_TEST_VERBOSE")) /* it reports errors that we make on purpose */
			dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 2);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execvp("nbdkit", (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	while (access(s->ready, R_OK)) {
		if (now_ms() > limit || waitpid(s->pid, NULL, WNOHANG) > 0)
			fail_msg("nbdkit did not start");
		usleep(10000);
	}
}

static inline void server_spawn(struct server *s, const char *const *words)
{
	*s = (struct server){ 0 };
	strcpy(s->dir, "/tmp/emf-test-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	snprintf(s->socket, sizeof(s->socket), "%s/nbd", s->dir);
	snprintf(s->uri, sizeof(s->uri), "nbd+unix:///?socket=%s", s->socket);
	snprintf(s->ready, sizeof(s->ready), "%s/pid", s->dir);
	server_exec(s, words);
}

static inline void server_kill(struct server *s)
{
	kill(s->pid, SIGKILL);
	waitpid(s->pid, NULL, 0);
	unlink(s->socket);
	unlink(s->ready);
}

static inline void server_stop(struct server *s)
{
	uint64_t limit = now_ms() + 2000;

	kill(s->pid, SIGTERM);
	while (waitpid(s->pid, NULL, WNOHANG) == 0) {
		if (now_ms() > limit)
			kill(s->pid, SIGKILL);
		usleep(5000);
	}
	unlink(s->socket);
	unlink(s->ready);
	rmdir(s->dir);
}

#endif
