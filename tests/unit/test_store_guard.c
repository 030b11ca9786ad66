/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard: far space is trimmed after any end of a process. The program under
 * test is a child of the test; the helper is this test again, called as `reap`.
 */
#include "test_store_util.h"

#include <sys/syscall.h>

#include "../../src/store/guard.h"

#define SLOT (2u * MIB)
#define NSLOTS 16u

struct scene {
	struct server s;
	char run_dir[64];
	const char *uri[2];
	struct store_options opt;
};

static void scene_open(struct scene *sc)
{
	*sc = (struct scene){ 0 };
	strcpy(sc->run_dir, "/tmp/emf-test-XXXXXX");
	assert_non_null(mkdtemp(sc->run_dir));
	server_start(&sc->s, "memory", "64M");
	sc->uri[0] = sc->s.uri;
	sc->uri[1] = "mem:?size=64M"; /* does not outlive: the helper keeps its place */
	sc->opt = (struct store_options){
		.uri = sc->uri,
		.nuri = 2,
		.stripe_unit = 256 * KIB,
		.timeout_ms = 5000,
		.provider_dir = providers_dir(),
		.run_dir = sc->run_dir,
	};
}

static void scene_close(struct scene *sc)
{
	char path[400];
	DIR *d = opendir(sc->run_dir);
	struct dirent *e;

	while ((e = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", sc->run_dir, e->d_name);
		unlink(path);
	}
	closedir(d);
	rmdir(sc->run_dir);
	server_stop(&sc->s);
}

/* A program with a guard: writes slots 1 and 3, of which only 1 is marked. */
static uint64_t *program(struct scene *sc, struct store *st, int *slots_fd)
{
	size_t len = STORE_SLOTS_HEADER + NSLOTS * sizeof(uint64_t);
	unsigned char *buf = pages(SLOT);
	struct emf_queue *q;
	char err[512];

	if (store_open(st, &sc->opt, err, sizeof(err)))
		fail_msg("%s", err);
	*slots_fd = memfd_create("slots", MFD_CLOEXEC);
	assert_int_equal(ftruncate(*slots_fd, (off_t)len), 0);
	char *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, *slots_fd, 0);
	uint64_t *used = (uint64_t *)(map + STORE_SLOTS_HEADER);
	memset(buf, 0xaa, SLOT);
	q = queue_ok(st->top, EMF_QUEUE_BULK, 1);
	assert_int_equal(transfer(q, EMF_WRITE, 1 * SLOT, SLOT, buf), 0);
	assert_int_equal(transfer(q, EMF_WRITE, 3 * SLOT, SLOT, buf), 0);
	used[1] = 1;
	q->ops->close(q);
	munmap(buf, SLOT);
	return used;
}

static int guard(struct scene *sc, const struct store *st, int slots_fd)
{
	return guard_start_program("/proc/self/exe", st, &sc->opt, slots_fd, NSLOTS, SLOT);
}

/* The first byte of a slot on the server: slot s begins at s * SLOT / 2 of its half. */
static unsigned char peek(struct scene *sc, unsigned slot)
{
	struct emf_backend *be = open_ok("nbd", sc->s.uri, 5000);
	struct emf_queue *q = queue_ok(be, EMF_QUEUE_DEMAND, 1);
	unsigned char *buf = pages(PAGE), c;

	assert_int_equal(transfer(q, EMF_READ, slot * (SLOT / 2), PAGE, buf), 0);
	c = buf[0];
	q->ops->close(q);
	be->ops->close(be);
	munmap(buf, PAGE);
	return c;
}

static bool trimmed_within(struct scene *sc, unsigned ms)
{
	uint64_t limit = now_ms() + ms;

	while (now_ms() < limit) {
		if (peek(sc, 1) == 0)
			return true;
		usleep(20000);
	}
	return false;
}

static void test_guard_sigkill(void **state)
{
	struct scene sc;
	struct store st;
	int slots_fd, inherited[2], ready[2], status;
	char c, err[512];
	pid_t pid;

	(void)state;
	NEED_NBDKIT();
	scene_open(&sc);
	assert_int_equal(pipe(inherited), 0);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		program(&sc, &st, &slots_fd);
		c = guard(&sc, &st, slots_fd) >= 0 ? 'y' : 'n';
		/* No child of the program's. */
		if (waitpid(-1, NULL, 0) != -1 || errno != ECHILD)
			c = 'w';
		(void)!write(ready[1], &c, 1);
		pause();
		_exit(1);
	}
	close(inherited[1]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_int_equal(c, 'y');
	assert_int_equal(peek(&sc, 1), 0xaa);
	usleep(100000); /* the guard does not work while the program lives */
	assert_int_equal(peek(&sc, 1), 0xaa);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	/* The helper, which may still be at work, holds no descriptor of the program's. */
	assert_int_equal(read(inherited[0], &c, 1), 0);
	/* Who comes now waits for the lock until the space is clean. */
	assert_int_equal(store_open(&st, &sc.opt, err, sizeof(err)), 0);
	assert_int_equal(peek(&sc, 1), 0);
	assert_int_equal(peek(&sc, 3), 0xaa); /* was not marked */
	store_close(&st);
	close(inherited[0]);
	close(ready[0]);
	scene_close(&sc);
}

/* An exec leaves the process alive, but nobody knows the slots any more. */
static void test_guard_exec(void **state)
{
	struct scene sc;
	struct store st;
	int slots_fd, status;
	pid_t pid;

	(void)state;
	NEED_NBDKIT();
	scene_open(&sc);
	pid = fork();
	if (!pid) {
		program(&sc, &st, &slots_fd);
		if (guard(&sc, &st, slots_fd) < 0)
			_exit(1);
		execl("/bin/sleep", "sleep", "30", NULL);
		_exit(2);
	}
	assert_true(trimmed_within(&sc, LIMIT_MS));
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	scene_close(&sc);
}

/* An orderly end: nothing is marked, so nothing is trimmed and the lock is free at once. */
static void test_guard_orderly(void **state)
{
	struct scene sc;
	struct store st;
	int slots_fd, status = -1;
	char err[512];
	pid_t pid;

	(void)state;
	NEED_NBDKIT();
	scene_open(&sc);
	pid = fork();
	if (!pid) {
		uint64_t *used = program(&sc, &st, &slots_fd);

		if (guard(&sc, &st, slots_fd) < 0)
			_exit(1);
		used[1] = 0;
		store_close(&st);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	sc.opt.timeout_ms = 2000;
	assert_int_equal(store_open(&st, &sc.opt, err, sizeof(err)), 0);
	store_close(&st);
	assert_int_equal(peek(&sc, 1), 0xaa);
	scene_close(&sc);
}

static void test_guard_errors(void **state)
{
	struct scene sc;
	struct store st;
	int slots_fd;
	char *const argv[] = { "reap", "--slots", "1", NULL };

	(void)state;
	NEED_NBDKIT();
	scene_open(&sc);
	program(&sc, &st, &slots_fd);
	assert_int_equal(
	    guard_start_program("/no/such/program", &st, &sc.opt, slots_fd, NSLOTS, SLOT), -ENOENT);
	assert_int_equal(guard_main(3, (char **)(uintptr_t)argv), 2);
	close(slots_fd);
	store_close(&st);
	scene_close(&sc);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_guard_sigkill),
		cmocka_unit_test(test_guard_exec),
		cmocka_unit_test(test_guard_orderly),
		cmocka_unit_test(test_guard_errors),
	};

	if (argc > 1 && !strcmp(argv[1], "reap"))
		return guard_main(argc - 1, argv + 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
