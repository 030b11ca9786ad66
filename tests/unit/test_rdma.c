/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rdma provider. What goes without a device; and, with EMF_TEST_RDMA=rdma://HOST?secret-file=FILE, the
 * rest against an emfatierd of 64 MiB there that nobody else uses (the lab, tests/vm).
 */
#define LANE (256u * KIB + 12u * KIB) /* emulated cards are slow */
#include "test_provider_runs.h"


static const char *server(void)
{
	return getenv("EMF_TEST_RDMA");
}

static struct emf_backend *open_more(const char *more)
{
	char uri[512];

	snprintf(uri, sizeof(uri), "%s%s", server(), more);
	return open_ok("rdma", uri, 0);
}

static void open_more_fails(const char *more, int rc, const char *word)
{
	char uri[512];

	snprintf(uri, sizeof(uri), "%s%s", server(), more);
	open_fails("rdma", uri, 5000, rc, word);
}

/* --- without a device --- */

static void bad_uris(void **state)
{
	(void)state;
	open_fails("rdma", "rdma:host", 0, -EINVAL, "write rdma://HOST");
	open_fails("rdma", "rdma://", 0, -EINVAL, "write HOST");
	open_fails("rdma", "rdma://?size=2M", 0, -EINVAL, "write HOST");
	open_fails("rdma", "rdma://h/export", 0, -EINVAL, "'export'");
	open_fails("rdma", "rdma://h:", 0, -EINVAL, "HOST:PORT");
	open_fails("rdma", "rdma://h:0", 0, -EINVAL, "HOST:PORT");
	open_fails("rdma", "rdma://h:65536", 0, -EINVAL, "HOST:PORT");
	open_fails("rdma", "rdma://h:1x", 0, -EINVAL, "HOST:PORT");
	open_fails("rdma", "rdma://h:-1", 0, -EINVAL, "HOST:PORT");
	open_fails("rdma", "rdma://[::1", 0, -EINVAL, "HOST:PORT");
	open_fails("rdma", "rdma://[::1]x", 0, -EINVAL, "HOST:PORT");
	open_fails("rdma", "rdma://h?size=1M", 0, -EINVAL, "2M and more");
	open_fails("rdma", "rdma://h?size=x", 0, -EINVAL, "'x'");
	open_fails("rdma", "rdma://h?tenant=", 0, -EINVAL, "tenant's name");
	open_fails("rdma", "rdma://h?tenant=a%20b", 0, -EINVAL, "tenant's name");
	open_fails("rdma", "rdma://h?tenant=01234567890123456789012345678901", 0, -EINVAL,
		   "tenant's name");
	open_fails("rdma", "rdma://h?tenant=%zz", 0, -EINVAL, "is not a value");
	open_fails("rdma", "rdma://h?odp=maybe", 0, -EINVAL, "not on or off");
	open_fails("rdma", "rdma://h?sized=2M", 0, -EINVAL, "'sized'");
	open_fails("rdma", "rdma://h?path=a&path=b&path=c&path=d", 0, -EINVAL, "one path too many");
	open_fails("rdma", "rdma://127.0.0.1?path=:7", 0, -EINVAL, "write HOST");
	open_fails("rdma", "rdma://h?secret-file=secret", 0, -EINVAL, "absolute path");
	open_fails("rdma", "rdma://h?secret-file=/no/such/file", 0, -ENOENT, "No such file");
	open_fails("rdma", "rdma://h?secret-file=/etc/passwd", 0, -EPERM, "others than its owner");
}

/* A resolver that does not answer costs the time that there is, not more. */
static void names_are_looked_up_in_time(void **state)
{
	uint64_t start = now_ms();

	(void)state;
	open_fails("rdma", "rdma://emfatier-none.invalid", 1000, 0, "cannot find");
	assert_true(now_ms() - start < LIMIT_MS);
}

static void no_device(void **state)
{
	(void)state;
	if (!access("/dev/infiniband/rdma_cm", F_OK)) {
		print_message("SKIPPED: there is a device\n");
		skip();
	}
	open_fails("rdma", "rdma://127.0.0.1", 1000, 0, "no RDMA device leads there");
	open_fails("rdma", "rdma://[::1]:1", 1000, 0, "no RDMA device leads there");
}

/* --- with one --- */

static void does_what_providers_do(void **state)
{
	struct emf_backend *be;

	(void)state;
	be = open_more("&size=16M");
	assert_int_equal(be->size, 16 * MIB);
	run_all(be, 60);
	be->ops->close(be);
}

/* What is new is zero, though it was somebody's before. */
static void leases_are_zero(void **state)
{
	unsigned char *buf;

	(void)state;
	for (int round = 0; round < 2; round++) {
		struct emf_backend *be = open_more("&size=48M");
		struct emf_queue *q = queue_ok(be, EMF_QUEUE_BULK, 4);

		buf = pages(2 * MIB);
		for (uint64_t at = 0; at < be->size; at += 2 * MIB) {
			memset(buf, 0x77, 2 * MIB);
			assert_int_equal(transfer(q, EMF_READ, at, 2 * MIB, buf), 0);
			assert_true(!buf[0] && !memcmp(buf, buf + 1, 2 * MIB - 1));
			memset(buf, 0xff, 2 * MIB);
			assert_int_equal(transfer(q, EMF_WRITE, at, 2 * MIB, buf), 0);
		}
		q->ops->close(q);
		be->ops->close(be);
		munmap(buf, 2 * MIB);
	}
}

static void queues_share_a_space(void **state)
{
	struct emf_backend *be;
	struct emf_queue *bulk, *demand;
	unsigned char *a = pages(2 * MIB), *b = pages(2 * MIB);

	(void)state;
	be = open_more("&size=8M");
	bulk = queue_ok(be, EMF_QUEUE_BULK, 4);
	demand = queue_ok(be, EMF_QUEUE_DEMAND, 4);
	fill(a, 2 * MIB, 3);
	/* over the border of two slabs */
	assert_int_equal(transfer(bulk, EMF_WRITE, MIB + 12 * KIB, 2 * MIB, a), 0);
	assert_int_equal(transfer(demand, EMF_READ, MIB + 12 * KIB, 2 * MIB, b), 0);
	assert_memory_equal(a, b, 2 * MIB);
	/* one that is closed and opened anew finds it, too: the lease goes on */
	bulk->ops->close(bulk);
	demand->ops->close(demand);
	demand = queue_ok(be, EMF_QUEUE_DEMAND, 4);
	memset(b, 0, 2 * MIB);
	assert_int_equal(transfer(demand, EMF_READ, MIB + 12 * KIB, 2 * MIB, b), 0);
	assert_memory_equal(a, b, 2 * MIB);
	demand->ops->close(demand);
	be->ops->close(be);
	munmap(a, 2 * MIB);
	munmap(b, 2 * MIB);
}

static void is_refused(void **state)
{
	struct emf_backend *be;
	char secret[] = "/tmp/emf-secret-XXXXXX", more[96];
	int fd;

	(void)state;
	server();
	fd = mkstemp(secret);
	assert_int_equal(write(fd, "this is another secret\n", 23), 23);
	close(fd);
	snprintf(more, sizeof(more), "&secret-file=%s", secret);
	open_more_fails(more, -EACCES, "denies access");
	unlink(secret);
	open_more_fails("&tenant=nobody", -EACCES, "denies access");
	open_more_fails("&size=1T", -ENOSPC, "no room left");
	open_more_fails("&size=65M", -ENOSPC, "no room left: 64 MiB of 64 MiB are available");
	/* what it takes without being asked leaves something to others */
	be = open_more("");
	assert_int_equal(be->size, 16 * MIB);
	open_more_fails("&size=50M", -ENOSPC, "48 MiB of 64 MiB are available, 25% are leased");
	be->ops->close(be);
	be = open_more("&size=50M");
	be->ops->close(be);
}

static void nobody_listens(void **state)
{
	char uri[256];
	char *query;

	(void)state;
	snprintf(uri, sizeof(uri), "%s", server());
	query = uri + strlen("rdma://") + strcspn(uri + strlen("rdma://"), ":?");
	strcpy(query, ":9?size=2M");
	open_fails("rdma", uri, 5000, 0, "nobody listens");
	open_fails("rdma", "rdma://10.99.0.77", 3000, 0, "");
}

/* The second path leads nowhere, or to the same server: it is slower, or faster, and right. */
static void has_paths(void **state)
{
	char more[300], host[128];
	struct emf_backend *be;

	(void)state;
	snprintf(host, sizeof(host), "%s", server() + strlen("rdma://"));
	host[strcspn(host, "?")] = '\0';
	snprintf(more, sizeof(more), "&size=16M&path=%s", host);
	be = open_more(more);
	run_model(be, EMF_QUEUE_BULK, 60);
	run_full_and_close(be);
	be->ops->close(be);
	be = open_more("&size=16M&path=10.99.0.77");
	run_model(be, EMF_QUEUE_BULK, 30);
	be->ops->close(be);
}

/* The child of a process that has connections makes its own; the parent's go on. */
static void a_child_has_its_own(void **state)
{
	struct emf_backend *be = open_more("&size=8M"), *mine;
	struct emf_queue *q = queue_ok(be, EMF_QUEUE_BULK, 4), *other;
	unsigned char *buf = pages(MIB), *back = pages(MIB);
	int fds[8], status;
	char err[256];
	pid_t pid;

	(void)state;
	assert_int_equal(be->ops->descriptors(be, fds, 8), -ENOTSUP);
	fill(buf, MIB, 5);
	assert_int_equal(transfer(q, EMF_WRITE, 0, MIB, buf), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		char uri[512];

		snprintf(uri, sizeof(uri), "%s&size=8M", server());
		if (provider("rdma")->open(uri, 0, &mine, err, sizeof(err)))
			_exit(1);
		other = queue_ok(mine, EMF_QUEUE_DEMAND, 4);
		if (transfer(other, EMF_READ, 0, MIB, back) || back[0] || back[MIB - 1])
			_exit(2);
		fill(buf, MIB, 6);
		if (transfer(other, EMF_WRITE, 0, MIB, buf) ||
		    transfer(other, EMF_READ, 0, MIB, back) || memcmp(buf, back, MIB))
			_exit(3);
		other->ops->close(other);
		mine->ops->close(mine);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(transfer(q, EMF_READ, 0, MIB, back), 0);
	assert_memory_equal(buf, back, MIB);
	q->ops->close(q);
	be->ops->close(be);
	munmap(buf, MIB);
	munmap(back, MIB);
}

int main(void)
{
	const struct CMUnitTest anywhere[] = {
		cmocka_unit_test(bad_uris),
		cmocka_unit_test(names_are_looked_up_in_time),
		cmocka_unit_test(no_device),
	};
	const struct CMUnitTest with_server[] = {
		cmocka_unit_test(does_what_providers_do), cmocka_unit_test(leases_are_zero),
		cmocka_unit_test(queues_share_a_space),	  cmocka_unit_test(is_refused),
		cmocka_unit_test(nobody_listens),	  cmocka_unit_test(has_paths),
		cmocka_unit_test(a_child_has_its_own),
	};

	if (server())
		return cmocka_run_group_tests_name("rdma with a server", with_server, NULL, NULL);
	return cmocka_run_group_tests_name("rdma", anywhere, NULL, NULL);
}
