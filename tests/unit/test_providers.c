/* SPDX-License-Identifier: Apache-2.0 */
/* The providers by themselves: mem, file, nbd. */
#include "test_provider_runs.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static void run_threads(struct emf_backend *be)
{
	model_run_threads(be,
			  &(struct model){ .lane_size = MIB, .lanes = 4, .steps = 200, .seed = 99 });
}

/* --- mem --- */

static void test_mem(void **state)
{
	struct emf_backend *be = open_ok("mem", "mem:?size=64M", 0);

	(void)state;
	assert_int_equal(be->size, 64 * MIB);
	assert_int_equal(be->caps, EMF_CAP_SYNC | EMF_CAP_TRIM | EMF_CAP_CUTS);
	run_all(be, 1000);
	run_threads(be);
	be->ops->close(be);
	be = open_ok("mem", "mem:", 0);
	assert_true(be->size >= 1ull << 30);
	be->ops->close(be);
}

static uint64_t resident(void)
{
	unsigned long long size = 0, rss = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%llu %llu", &size, &rss), 2);
	fclose(f);
	return rss * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void test_mem_trim_gives_back(void **state)
{
	struct emf_backend *be = open_ok("mem", "mem:?size=1G", 0);
	struct emf_queue *q = queue_ok(be, EMF_QUEUE_BULK, 1);
	unsigned char *buf = pages(64 * MIB);
	uint64_t full;

	(void)state;
	fill(buf, 64 * MIB, 3);
	assert_int_equal(transfer(q, EMF_WRITE, 0, 64 * MIB, buf), 0);
	full = resident();
	assert_int_equal(transfer(q, EMF_TRIM, 0, 64 * MIB, NULL), 0);
	assert_true(resident() + 60 * MIB < full);
	q->ops->close(q);
	be->ops->close(be);
	munmap(buf, 64 * MIB);
}

/* What would end in minutes has not ended, but a demand read has, which is not behind it. */
static void test_mem_link(void **state)
{
	struct emf_backend *be = open_ok("mem", "mem:?size=64M&latency=2ms&bandwidth=256M", 0);
	struct emf_queue *q[2], *demand;
	unsigned char *buf = pages(32 * MIB);
	struct emf_io io[8] = { 0 };
	unsigned ended = 0;

	(void)state;
	assert_int_equal(be->caps, EMF_CAP_TRIM | EMF_CAP_CUTS);
	run_all(be, 200);
	be->ops->close(be);

	be = open_ok("mem", "mem:?size=64M&bandwidth=64K", 0);
	q[0] = queue_ok(be, EMF_QUEUE_BULK, 8);
	q[1] = queue_ok(be, EMF_QUEUE_BULK, 8);
	demand = queue_ok(be, EMF_QUEUE_DEMAND, 8);
	for (unsigned i = 0; i < 8; i++) {
		io[i] = (struct emf_io){
			.op = EMF_WRITE,
			.offset = i * 4ull * MIB,
			.length = 4 * MIB,
			.buf = buf + i * 4 * MIB,
			.done = count_done,
			.user = &ended,
		};
		assert_int_equal(q[i % 2]->ops->submit(q[i % 2], &io[i]), 0);
	}
	assert_int_equal(transfer(demand, EMF_READ, 32ull * MIB, PAGE, buf), 0);
	assert_int_equal(q[0]->ops->poll(q[0]) + q[1]->ops->poll(q[1]), 0);
	assert_int_equal(ended, 0);
	q[0]->ops->close(q[0]);
	q[1]->ops->close(q[1]);
	assert_int_equal(ended, 8);
	demand->ops->close(demand);
	be->ops->close(be);

	be = open_ok("mem", "mem:?size=64M&latency=1000s", 0);
	demand = queue_ok(be, EMF_QUEUE_DEMAND, 1);
	io[0].op = EMF_READ;
	assert_int_equal(demand->ops->submit(demand, &io[0]), 0);
	assert_int_equal(demand->ops->poll(demand), 0);
	demand->ops->close(demand);
	assert_int_equal(io[0].status, -ECANCELED);
	be->ops->close(be);
	munmap(buf, 32 * MIB);
}

static void test_mem_bad_uri(void **state)
{
	(void)state;
	open_fails("mem", "mem:foo", 0, -EINVAL, "no path");
	open_fails("mem", "mem:?size=12Q", 0, -EINVAL, "size=12Q");
	open_fails("mem", "mem:?size=0", 0, -EINVAL, "size=0");
	open_fails("mem", "mem:?size=-1", 0, -EINVAL, "size=-1");
	open_fails("mem", "mem:?size=100000000T", 0, -EINVAL, "size=");
	open_fails("mem", "mem:?latency=3", 0, -EINVAL, "latency=3");
	open_fails("mem", "mem:?bandwidth=0", 0, -EINVAL, "bandwidth=0");
	open_fails("mem", "mem:?speed=3", 0, -EINVAL, "no parameter 'speed'");
}

/* --- file --- */

static unsigned entries(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void test_file(void **state)
{
	char dir[] = "/var/tmp/emf-test-XXXXXX", uri[128], path[96];
	struct emf_backend *be;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(uri, sizeof(uri), "file:%s?size=64M", dir);
	be = open_ok("file", uri, 0);
	assert_int_equal(be->size, 64 * MIB);
	assert_int_equal(entries(dir), 0);
	run_all(be, 500);
	run_threads(be);
	be->ops->close(be);

	snprintf(uri, sizeof(uri), "file:%s/a%%3fb", dir); /* free space; %XX */
	be = open_ok("file", uri, 0);
	assert_true(be->size >= 64 * MIB);
	assert_int_equal(entries(dir), 0);
	run_model(be, EMF_QUEUE_BULK, 50);
	be->ops->close(be);

	snprintf(path, sizeof(path), "%s/mine", dir);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	snprintf(uri, sizeof(uri), "file:%s", path);
	open_fails("file", uri, 0, -EEXIST, "exists");
	assert_int_equal(entries(dir), 1);
	unlink(path);
	rmdir(dir);
}

static void test_file_tmpfs(void **state)
{
	struct emf_backend *be;

	(void)state;
	if (access("/dev/shm", W_OK)) {
		print_message("SKIPPED: no /dev/shm\n");
		skip();
	}
	be = open_ok("file", "file:/dev/shm?size=64M", 0);
	run_all(be, 200);
	be->ops->close(be);
}

static void test_file_bad_uri(void **state)
{
	(void)state;
	open_fails("file", "file:", 0, -EINVAL, "file:/PATH");
	open_fails("file", "file:relative", 0, -EINVAL, "file:/PATH");
	open_fails("file", "file:/tmp/%zz", 0, -EINVAL, "%XX");
	open_fails("file", "file:/var/tmp?size=x", 0, -EINVAL, "size=x");
	open_fails("file", "file:/var/tmp?keep", 0, -EINVAL, "no parameter 'keep'");
	open_fails("file", "file:/no/such/dir/file", 0, -ENOENT, "No such file");
	open_fails("file", "file:/dev/null", 0, -EEXIST, "exists");
}

/* Runs fn in a process of its own, since it changes what can't be changed back. */
static int in_child(int (*fn)(void))
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		_exit(fn());
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int over_file_size_limit(void)
{
	struct rlimit limit = { .rlim_cur = 8 * MIB, .rlim_max = 8 * MIB };
	struct emf_backend *be;
	char err[256];

	setrlimit(RLIMIT_FSIZE, &limit);
	if (provider("file")->open("file:/var/tmp?size=9M", 0, &be, err, sizeof(err)) != -EFBIG)
		return 1;
	if (provider("file")->open("file:/var/tmp", 0, &be, err, sizeof(err)))
		return 2;
	return be->size == 8 * MIB ? 0 : 3;
}

static void test_file_size_limit(void **state)
{
	(void)state;
	assert_int_equal(in_child(over_file_size_limit), 0);
}

#define CANNOT 77

static int on_full_disk(void)
{
	char dir[] = "/tmp/emf-test-XXXXXX", uri[64];
	struct emf_backend *be;
	struct emf_queue *q;
	unsigned char *buf = pages(2 * MIB);
	int rc = 0, i;

	if (!mkdtemp(dir))
		return 1;
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", dir, "tmpfs", 0, "size=5m")) {
		rmdir(dir);
		return CANNOT;
	}
	snprintf(uri, sizeof(uri), "file:%s?size=64M", dir);
	be = open_ok("file", uri, 0);
	q = queue_ok(be, EMF_QUEUE_BULK, 4);
	fill(buf, 2 * MIB, 7);
	for (i = 0; i < 10 && !rc; i++)
		rc = transfer(q, EMF_WRITE, (uint64_t)i * 2 * MIB, 2 * MIB, buf);
	if (rc != -ENOSPC || i != 3)
		return 2;
	/* A trim makes room again. */
	if (transfer(q, EMF_TRIM, 0, 4 * MIB, NULL) || transfer(q, EMF_WRITE, 0, 2 * MIB, buf))
		return 3;
	q->ops->close(q);
	be->ops->close(be);
	umount(dir);
	rmdir(dir);
	return 0;
}

static void test_file_disk_full(void **state)
{
	int rc = in_child(on_full_disk);

	(void)state;
	if (rc == CANNOT) {
		print_message("SKIPPED: may not mount a small tmpfs\n");
		skip();
	}
	assert_int_equal(rc, 0);
}

static int without_io_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = 4, .filter = code };
	struct emf_backend *be;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		return CANNOT;
	be = open_ok("file", "file:/var/tmp?size=64M", 0);
	if (!(be->caps & EMF_CAP_SYNC))
		return 1;
	run_all(be, 300);
	run_threads(be);
	be->ops->close(be);
	return 0;
}

static void test_file_without_io_uring(void **state)
{
	int rc = in_child(without_io_uring);

	(void)state;
	if (rc == CANNOT) {
		print_message("SKIPPED: no seccomp\n");
		skip();
	}
	assert_int_equal(rc, 0);
}

/* --- numa, dax --- */

static bool node_exists(unsigned node)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/meminfo", node);
	return !access(path, R_OK);
}

static void test_numa(void **state)
{
	struct emf_backend *be;
	struct emf_queue *q;
	char *buf;

	(void)state;
	if (!node_exists(0)) {
		print_message("SKIPPED: a kernel without NUMA\n");
		skip();
	}
	/* Where there is no node without CPUs, one with them does. */
	be = open_ok("numa", "numa:0?cpus=on&size=64M", 0);
	assert_int_equal(be->size, 64 * MIB);
	run_all(be, 500);
	run_threads(be);
	/* Of node 0, said by the kernel. */
	q = queue_ok(be, EMF_QUEUE_BULK, 1);
	buf = pages(2 * MIB);
	fill(buf, 2 * MIB, 7);
	assert_int_equal(transfer(q, EMF_WRITE, 32 * MIB, 2 * MIB, buf), 0);
	FILE *f = fopen("/proc/self/numa_maps", "r");
	char line[512];
	bool bound = false;
	while (f && fgets(line, sizeof(line), f))
		bound |= strstr(line, " bind:0 ") && strstr(line, "anon=");
	assert_true(bound);
	fclose(f);
	munmap(buf, 2 * MIB);
	q->ops->close(q);
	be->ops->close(be);
}

static void test_numa_bad_uri(void **state)
{
	(void)state;
	open_fails("numa", "numa:", 0, -EINVAL, "write numa:N");
	open_fails("numa", "numa:one", 0, -EINVAL, "write numa:N");
	open_fails("numa", "numa:-1", 0, -EINVAL, "write numa:N");
	open_fails("numa", "numa:99999", 0, -EINVAL, "write numa:N");
	open_fails("numa", "numa:0?size=1", 0, -EINVAL, "'size=1'");
	open_fails("numa", "numa:0?cpus=yes", 0, -EINVAL, "'cpus=yes'");
	if (!node_exists(0)) {
		print_message("SKIPPED: a kernel without NUMA\n");
		skip();
	}
	open_fails("numa", "numa:1000", 0, -ENXIO, "there is no node 1000");
	open_fails("numa", "numa:0", 0, -EINVAL, "node 0 has CPUs");
}

/* Without a file system with DAX it goes through the page cache; the code is the same. */
static void test_dax(void **state)
{
	char dir[] = "/var/tmp/emf-test-XXXXXX", uri[128], path[96];
	struct emf_backend *be;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(uri, sizeof(uri), "dax:%s?size=64M", dir);
	be = open_ok("dax", uri, 0);
	assert_int_equal(be->size, 64 * MIB);
	assert_true(be->caps & EMF_CAP_BYTES);
	assert_int_equal(entries(dir), 0);
	run_all(be, 500);
	run_threads(be);
	be->ops->close(be);

	snprintf(uri, sizeof(uri), "dax:%s/new?size=8M", dir);
	be = open_ok("dax", uri, 0);
	assert_int_equal(entries(dir), 0);
	be->ops->close(be);

	snprintf(path, sizeof(path), "%s/mine", dir);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	snprintf(uri, sizeof(uri), "dax:%s?size=8M", path);
	open_fails("dax", uri, 0, -EEXIST, "might be somebody's");
	unlink(path);
	rmdir(dir);
}

static void test_dax_bad_uri(void **state)
{
	(void)state;
	open_fails("dax", "dax:", 0, -EINVAL, "write dax:");
	open_fails("dax", "dax:relative", 0, -EINVAL, "write dax:");
	open_fails("dax", "dax:/tmp?align=2M", 0, -EINVAL, "'align=2M'");
	open_fails("dax", "dax:/tmp", 0, -EINVAL, "?size=SIZE");
	open_fails("dax", "dax:/no/such/dir/file?size=8M", 0, -ENOENT, "No such file");
	open_fails("dax", "dax:/dev/dax99.9", 0, -ENOENT, "no such device");
	open_fails("dax", "dax:/dev/null", 0, -ENODEV, "not a DAX device");
}

/* --- nbd --- */

static void test_nbd(void **state)
{
	struct emf_backend *be;
	struct server s;

	(void)state;
	NEED_NBDKIT();
	server_start(&s, "memory", "64M", NULL);
	be = open_ok("nbd", s.uri, 5000);
	assert_int_equal(be->size, 64 * MIB);
	assert_int_equal(be->caps, EMF_CAP_TRIM | EMF_CAP_OUTLIVES | EMF_CAP_MALLOC | EMF_CAP_CUTS |
				   EMF_CAP_CONNECTS);
	run_all(be, 500);
	run_threads(be);
	be->ops->close(be);
	server_stop(&s);
}

/* A server that takes 64 KiB a request: everything longer is cut. */
static void test_nbd_small_requests(void **state)
{
	struct emf_backend *be;
	struct server s;

	(void)state;
	NEED_NBDKIT();
	server_start(&s, "--filter=blocksize-policy", "memory", "64M", "blocksize-preferred=4K",
		     "blocksize-maximum=64K", "blocksize-error-policy=error");
	be = open_ok("nbd", s.uri, 5000);
	run_all(be, 200);
	be->ops->close(be);
	server_stop(&s);
}

static void test_nbd_refused(void **state)
{
	struct server s;
	char uri[256];

	(void)state;
	NEED_NBDKIT();
	server_start(&s, "-r", "memory", "64M");
	open_fails("nbd", s.uri, 5000, -EROFS, "read-only");
	server_stop(&s);
	open_fails("nbd", s.uri, 5000, 0, "No such file");
	server_start(&s, "eval", "get_size=echo 64M", "pread=exit 1", "pwrite=exit 1");
	open_fails("nbd", s.uri, 5000, -ENOTSUP, "several connections");
	server_stop(&s);
	server_start(&s, "memory", "0");
	open_fails("nbd", s.uri, 5000, -ENOSPC, "empty");
	server_stop(&s);
	server_start(&s, "--filter=exportname", "memory", "64M", "exportname=a",
		     "exportname-strict=true");
	open_fails("nbd", s.uri, 5000, 0, "");
	snprintf(uri, sizeof(uri), "nbd+unix:///a?socket=%s", s.socket);
	struct emf_backend *be = open_ok("nbd", uri, 5000);
	be->ops->close(be);
	server_stop(&s);
	open_fails("nbd", "nbd://127.0.0.1:1/", 5000, -ECONNREFUSED, "refused");
	open_fails("nbd", "nbd://[::1", 5000, -EINVAL, "URI");
}

/* A server's own errors come through, and the connection goes on. */
static void test_nbd_full(void **state)
{
	struct emf_backend *be;
	struct emf_queue *q;
	unsigned char *buf = pages(MIB);
	struct server s;

	(void)state;
	NEED_NBDKIT();
	server_start(&s, "eval", "get_size=echo 64M", "can_multi_conn=exit 0",
		     "pread=dd if=/dev/zero count=$3 iflag=count_bytes status=none",
		     "pwrite=cat >/dev/null; echo ENOSPC full >&2; exit 1");
	be = open_ok("nbd", s.uri, 5000);
	assert_int_equal(be->caps,
			 EMF_CAP_OUTLIVES | EMF_CAP_MALLOC | EMF_CAP_CUTS | EMF_CAP_CONNECTS);
	q = queue_ok(be, EMF_QUEUE_BULK, 4);
	assert_int_equal(transfer(q, EMF_WRITE, 0, MIB, buf), -ENOSPC);
	assert_int_equal(transfer(q, EMF_READ, 0, 64 * KIB, buf), 0);
	assert_int_equal(transfer(q, EMF_TRIM, 0, MIB, NULL), 0);
	q->ops->close(q);
	be->ops->close(be);
	server_stop(&s);
	munmap(buf, MIB);
}

/* Accepts connections by the kernel and never says a word. */
static void test_nbd_black_hole(void **state)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	socklen_t length = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t start = now_ms();
	char uri[64];

	(void)state;
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &length), 0);
	snprintf(uri, sizeof(uri), "nbd://127.0.0.1:%u/", ntohs(addr.sin_port));
	open_fails("nbd", uri, 300, -ETIMEDOUT, "no answer within 300 ms");
	assert_true(now_ms() - start < LIMIT_MS);
	close(fd);
}

#define BUSY 8u

/*
 * Transfers are in flight, then the server gets the signal: all end with the
 * error, and so does a later one.
 */
static void run_loss(int signal_number, int expected)
{
	unsigned char *buf = pages(BUSY * 2 * MIB);
	struct emf_io io[BUSY];
	struct emf_backend *be;
	struct emf_queue *q, *idle;
	unsigned ended = 0, lost = 0;
	struct server s;
	uint64_t start;

	/* Slow enough that some are in flight when the signal comes. */
	server_start(&s, "--filter=delay", "memory", "64M", "rdelay=100ms", "wdelay=100ms");
	be = open_ok("nbd", s.uri, 700);
	q = queue_ok(be, EMF_QUEUE_BULK, BUSY);
	idle = queue_ok(be, EMF_QUEUE_DEMAND, 1);
	for (unsigned i = 0; i < BUSY; i++) {
		io[i] = (struct emf_io){
			.op = i % 2 ? EMF_READ : EMF_WRITE,
			.offset = i * 2ull * MIB,
			.length = 2 * MIB,
			.buf = buf + i * 2 * MIB,
			.done = count_done,
			.user = &ended,
		};
		assert_int_equal(q->ops->submit(q, &io[i]), 0);
	}
	q->ops->poll(q);
	kill(s.pid, signal_number);
	start = now_ms();
	while (q->inflight && now_ms() - start < LIMIT_MS)
		turn(q);
	assert_int_equal(ended, BUSY);
	for (unsigned i = 0; i < BUSY; i++)
		lost += io[i].status == expected;
	assert_true(lost > 0);
	assert_int_equal(transfer(q, EMF_READ, 0, PAGE, buf), expected);
	assert_int_equal(transfer(q, EMF_WRITE, 0, 2 * MIB, buf), expected);
	assert_int_equal(transfer(idle, EMF_WRITE, 0, 2 * MIB, buf), expected);
	q->ops->close(q);
	idle->ops->close(idle);
	be->ops->close(be);
	kill(s.pid, SIGCONT);
	server_stop(&s);
	munmap(buf, BUSY * 2 * MIB);
}

static void test_nbd_dies(void **state)
{
	(void)state;
	NEED_NBDKIT();
	run_loss(SIGKILL, -ENOTCONN); /* SIGPIPE would end this test */
}

static void test_nbd_stops_answering(void **state)
{
	(void)state;
	NEED_NBDKIT();
	run_loss(SIGSTOP, -ETIMEDOUT);
}

/* The server restarts between open and the first queue. */
static void test_nbd_idle_connection_lost(void **state)
{
	struct emf_backend *be;
	struct emf_queue *q;
	struct server s;

	(void)state;
	NEED_NBDKIT();
	server_start(&s, "memory", "64M");
	be = open_ok("nbd", s.uri, 2000);
	server_stop(&s);
	assert_true(be->ops->queue_open(be, EMF_QUEUE_BULK, 1, &q) < 0);
	be->ops->close(be);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mem),
		cmocka_unit_test(test_mem_trim_gives_back),
		cmocka_unit_test(test_mem_link),
		cmocka_unit_test(test_mem_bad_uri),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_file_tmpfs),
		cmocka_unit_test(test_file_bad_uri),
		cmocka_unit_test(test_file_size_limit),
		cmocka_unit_test(test_file_disk_full),
		cmocka_unit_test(test_file_without_io_uring),
		cmocka_unit_test(test_numa),
		cmocka_unit_test(test_numa_bad_uri),
		cmocka_unit_test(test_dax),
		cmocka_unit_test(test_dax_bad_uri),
		cmocka_unit_test(test_nbd),
		cmocka_unit_test(test_nbd_small_requests),
		cmocka_unit_test(test_nbd_refused),
		cmocka_unit_test(test_nbd_full),
		cmocka_unit_test(test_nbd_black_hole),
		cmocka_unit_test(test_nbd_dies),
		cmocka_unit_test(test_nbd_stops_answering),
		cmocka_unit_test(test_nbd_idle_connection_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
