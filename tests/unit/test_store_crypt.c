/* SPDX-License-Identifier: Apache-2.0 */
/* The encryption link: a server can neither read, nor alter, nor replay. */
#include "test_store_toy.h"

#include <sys/resource.h>

#include "../../src/store/crypt.h"
#include "../../src/store/store.h"

#define SLOT (2u * MIB)
#define CLUSTER (64 * KIB)
#define SIZE (16ull * MIB)

static const struct emf_aead *aead(void)
{
	char path[PATH_MAX + 64];
	const struct emf_aead *a;
	void *dl;

	assert_non_null(providers_dir());
	snprintf(path, sizeof(path), "%s/link-crypt.so", providers_dir());
	dl = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!dl)
		fail_msg("%s", dlerror());
	a = dlsym(dl, "emf_aead");
	assert_non_null(a);
	return a;
}

static struct emf_backend *open_crypt(struct emf_backend *below)
{
	struct emf_backend *be = NULL;
	char err[256] = "";

	if (crypt_open(below, aead(), &be, err, sizeof(err)))
		fail_msg("%s", err);
	return be;
}

struct scene {
	struct toy toy;
	struct emf_backend *be;
	struct emf_queue *q;
	unsigned char *buf, *back;
};

static void scene_open(struct scene *s)
{
	toy_init(&s->toy, SIZE);
	s->toy.be.max_length = SLOT;
	s->be = open_crypt(&s->toy.be);
	s->q = queue_ok(s->be, EMF_QUEUE_BULK, 4);
	s->buf = pages(SLOT);
	s->back = pages(SLOT);
	fill(s->buf, SLOT, 11);
}

static void scene_close(struct scene *s)
{
	s->q->ops->close(s->q);
	s->be->ops->close(s->be);
	munmap(s->toy.mem, SIZE);
	munmap(s->buf, SLOT);
	munmap(s->back, SLOT);
}

/* How many of the aligned words of a are in the same place of b. */
static size_t same_words(const void *a, const void *b, size_t length)
{
	const uint64_t *x = a, *y = b;
	size_t n = 0;

	for (size_t i = 0; i < length / 8; i++)
		n += x[i] == y[i];
	return n;
}

static void test_crypt_secret(void **state)
{
	static const char word[] = "the prompt of somebody";
	struct scene s;

	(void)state;
	scene_open(&s);
	for (size_t i = 0; i + sizeof(word) < SLOT; i += 512)
		memcpy(s.buf + i, word, sizeof(word));
	assert_int_equal(transfer(s.q, EMF_WRITE, SLOT, SLOT, s.buf), 0);
	assert_null(memmem(s.toy.mem, SIZE, word, sizeof(word) - 1));
	assert_int_equal(transfer(s.q, EMF_READ, SLOT, SLOT, s.back), 0);
	assert_memory_equal(s.buf, s.back, SLOT);
	/* The same content again, here and elsewhere, looks different every time. */
	assert_int_equal(transfer(s.q, EMF_WRITE, 2 * SLOT, SLOT, s.buf), 0);
	assert_int_equal(same_words(s.toy.mem + SLOT, s.toy.mem + 2 * SLOT, SLOT), 0);
	memcpy(s.back, s.toy.mem + SLOT, SLOT);
	assert_int_equal(transfer(s.q, EMF_WRITE, SLOT, SLOT, s.buf), 0);
	assert_int_equal(same_words(s.toy.mem + SLOT, s.back, SLOT), 0);
	/* And the clusters of one slot differ among each other. */
	memset(s.buf, 0, SLOT);
	assert_int_equal(transfer(s.q, EMF_WRITE, SLOT, SLOT, s.buf), 0);
	for (unsigned i = 1; i < SLOT / CLUSTER; i++)
		assert_int_equal(same_words(s.toy.mem + SLOT, s.toy.mem + SLOT + i * CLUSTER, CLUSTER), 0);
	scene_close(&s);
}

static void test_crypt_altered(void **state)
{
	unsigned char *old = pages(SLOT);
	struct scene s;

	(void)state;
	scene_open(&s);
	assert_int_equal(transfer(s.q, EMF_READ, 0, SLOT, s.back), -EBADMSG);
	assert_int_equal(transfer(s.q, EMF_WRITE, 0, SLOT, s.buf), 0);
	for (size_t bit = 3; bit < SLOT * 8ull; bit += SLOT * 8ull / 40 + 7) {
		s.toy.mem[bit / 8] ^= (unsigned char)(1u << bit % 8);
		assert_int_equal(transfer(s.q, EMF_READ, 0, SLOT, s.back), -EBADMSG);
		assert_int_equal(transfer(s.q, EMF_READ, bit / 8 / CLUSTER * CLUSTER, CLUSTER, s.back),
				 -EBADMSG);
		s.toy.mem[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	assert_int_equal(transfer(s.q, EMF_READ, 0, SLOT, s.back), 0);
	/* What was right once: an older version; another place. */
	memcpy(old, s.toy.mem, SLOT);
	assert_int_equal(transfer(s.q, EMF_WRITE, 0, SLOT, s.buf), 0);
	memcpy(s.toy.mem + 5 * CLUSTER, old + 5 * CLUSTER, CLUSTER);
	assert_int_equal(transfer(s.q, EMF_READ, 4 * CLUSTER, CLUSTER, s.back), 0);
	assert_int_equal(transfer(s.q, EMF_READ, 5 * CLUSTER, CLUSTER, s.back), -EBADMSG);
	assert_int_equal(transfer(s.q, EMF_WRITE, 0, SLOT, s.buf), 0);
	memcpy(s.toy.mem + 5 * CLUSTER, s.toy.mem + 6 * CLUSTER, CLUSTER);
	assert_int_equal(transfer(s.q, EMF_READ, 5 * CLUSTER, CLUSTER, s.back), -EBADMSG);
	/* A shorter write replaces the slot. */
	assert_int_equal(transfer(s.q, EMF_WRITE, 20 * KIB, 100 * KIB, s.buf), 0);
	assert_int_equal(transfer(s.q, EMF_READ, 20 * KIB, 100 * KIB, s.back), 0);
	assert_memory_equal(s.buf, s.back, 100 * KIB);
	assert_int_equal(transfer(s.q, EMF_READ, 20 * KIB, 96 * KIB, s.back), -EBADMSG);
	assert_int_equal(transfer(s.q, EMF_READ, 2 * CLUSTER, CLUSTER, s.back), -EBADMSG);
	/* Failed, refused, trimmed. */
	s.toy.fail = -EIO;
	assert_int_equal(transfer(s.q, EMF_WRITE, SLOT, CLUSTER, s.buf), -EIO);
	s.toy.fail = 0;
	assert_int_equal(transfer(s.q, EMF_READ, SLOT, CLUSTER, s.back), -EBADMSG);
	assert_int_equal(transfer(s.q, EMF_WRITE, SIZE - PAGE, 2 * PAGE, s.buf), -ENOSPC);
	assert_int_equal(transfer(s.q, EMF_READ, 100, PAGE, s.back), -EINVAL);
	assert_int_equal(transfer(s.q, EMF_TRIM, 0, SLOT, NULL), 0);
	assert_int_equal(transfer(s.q, EMF_READ, 20 * KIB, 100 * KIB, s.back), -EBADMSG);
	scene_close(&s);
	munmap(old, SLOT);
}

/* More writes at once than there are buffers, members that have no room, a close in between. */
static void test_crypt_many(void **state)
{
	struct model m = { .lane_size = SLOT, .lanes = 7, .steps = 200, .seed = 9, .slots = true };
	struct emf_io io[4];
	bool ended[4] = { 0 };
	struct scene s;

	(void)state;
	scene_open(&s);
	for (unsigned every = 0; every < 4; every++) {
		s.toy.full_every = every ? every + 1 : 0;
		m.q = queue_ok(s.be, EMF_QUEUE_BULK, 7);
		assert_int_equal(model_run(&m), 0);
		m.q->ops->close(m.q);
	}
	s.toy.full_every = 0;
	for (unsigned i = 0; i < 4; i++) {
		io[i] = (struct emf_io){ .op = EMF_WRITE, .offset = i * SLOT, .length = SLOT,
					 .buf = s.buf, .done = flag_done, .user = &ended[i] };
		assert_int_equal(s.q->ops->submit(s.q, &io[i]), 0);
	}
	s.q->ops->close(s.q);
	for (unsigned i = 0; i < 4; i++) {
		assert_true(ended[i]);
		assert_int_equal(io[i].status, -ECANCELED);
	}
	s.q = queue_ok(s.be, EMF_QUEUE_BULK, 4);
	scene_close(&s);
}

/* Transfers allocate nothing in the library, good ones and bad ones. */
static void test_crypt_no_allocations(void **state)
{
	struct scene s;
	unsigned before;

	(void)state;
	scene_open(&s);
	before = aead()->allocations();
	assert_true(before > 0);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(transfer(s.q, EMF_WRITE, 0, SLOT, s.buf), 0);
		assert_int_equal(transfer(s.q, EMF_READ, 0, SLOT, s.back), 0);
		s.toy.mem[i * 1000] ^= 1;
		assert_int_equal(transfer(s.q, EMF_READ, 0, SLOT, s.back), -EBADMSG);
	}
	assert_int_equal(aead()->allocations(), before);
	scene_close(&s);
}

/* Mappings whose flags in smaps have all of the words. */
static unsigned mappings_with(const char *one, const char *two)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512];
	unsigned n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		n += !strncmp(line, "VmFlags:", 8) && strstr(line, one) && strstr(line, two);
	fclose(f);
	return n;
}

/* A child's key is locked as well, its nonces are its own, and it reads what the parent wrote. */
static void test_crypt_fork(void **state)
{
	unsigned locked = mappings_with(" lo", " dd");
	int status, to_parent[2];
	struct scene s;
	pid_t pid;

	(void)state;
	scene_open(&s);
	assert_int_equal(mappings_with(" lo", " dd"), locked + 1);
	assert_int_equal(transfer(s.q, EMF_WRITE, 0, SLOT, s.buf), 0);
	assert_int_equal(pipe(to_parent), 0);
	pid = fork();
	if (!pid) {
		bool ok = !s.be->ops->forked(s.be, NULL) && mappings_with(" lo", " dd") == locked + 1 &&
			  !s.be->ops->queue_open(s.be, EMF_QUEUE_BULK, 1, &s.q) &&
			  !transfer(s.q, EMF_READ, 0, SLOT, s.back) && !memcmp(s.buf, s.back, SLOT);

		/* As its first transfer and the parent's next: the counters are equal again. */
		for (unsigned i = 0; i < 2; i++)
			ok = ok && !transfer(s.q, EMF_WRITE, SLOT, SLOT, s.buf);
		ok = ok && write(to_parent[1], s.toy.mem + SLOT, CLUSTER) == CLUSTER;
		_exit(ok ? 0 : 1);
	}
	for (size_t at = 0; at < CLUSTER;) {
		ssize_t n = read(to_parent[0], s.back + at, CLUSTER - at);

		assert_true(n > 0);
		at += (size_t)n;
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	assert_int_equal(transfer(s.q, EMF_WRITE, SLOT, SLOT, s.buf), 0);
	assert_int_equal(same_words(s.toy.mem + SLOT, s.back, CLUSTER), 0);
	scene_close(&s);
	assert_int_equal(mappings_with(" lo", " dd"), locked);
	close(to_parent[0]);
	close(to_parent[1]);
}

/* Without leave to lock memory there is no store, and a line says what to do. */
static void test_crypt_not_lockable(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (!pid) {
		struct emf_backend *be;
		struct toy toy;
		char err[256] = "";

		toy_init(&toy, SIZE);
		setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ 0 });
		if (!geteuid() && (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)))
			_exit(2);
		int rc = crypt_open(&toy.be, aead(), &be, err, sizeof(err));
		_exit(rc < 0 && strstr(err, "raise ulimit -l") ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

static void test_crypt_store(void **state)
{
	static const char *const uri[] = { "mem:?size=64M", "mem:?size=64M&latency=20us" };
	unsigned char *buf = pages(SLOT);

	(void)state;
	fill(buf, SLOT, 5);
	for (unsigned n = 1; n <= 2; n++) {
		struct store_options opt = { .uri = uri, .nuri = n, .stripe_unit = 256 * KIB,
					     .timeout_ms = 1000, .encrypt = true,
					     .provider_dir = providers_dir() };
		struct model m = { .lane_size = SLOT, .lanes = 8, .steps = 300, .seed = 3, .slots = true };
		struct store st;
		char err[512];

		if (store_open(&st, &opt, err, sizeof(err)))
			fail_msg("%s", err);
		m.q = queue_ok(st.top, EMF_QUEUE_BULK, 8);
		assert_int_equal(model_run(&m), 0);
		assert_int_equal(transfer(m.q, EMF_WRITE, 0, SLOT, buf), 0);
		assert_true(store_matches(&st, 0, SLOT, buf));
		assert_false(store_matches(&st, SLOT, SLOT, buf));
		m.q->ops->close(m.q);
		store_close(&st);
	}
	munmap(buf, SLOT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crypt_secret),
		cmocka_unit_test(test_crypt_altered),
		cmocka_unit_test(test_crypt_many),
		cmocka_unit_test(test_crypt_no_allocations),
		cmocka_unit_test(test_crypt_fork),
		cmocka_unit_test(test_crypt_not_lockable),
		cmocka_unit_test(test_crypt_store),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
