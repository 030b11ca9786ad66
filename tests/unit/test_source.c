/* SPDX-License-Identifier: Apache-2.0 */
/* Files that regions are filled from: what counts as weights, identity, reads through the queue. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "source.h"
#include "source_queue.h"

#define PAGE 4096u

static char path[64];

/* A file of n bytes, byte i of it is i / PAGE + 1. */
static int make_file(size_t n, const char *suffix)
{
	char page[PAGE];

	snprintf(path, sizeof(path), "/var/tmp/emf-source-XXXXXX%s", suffix);
	int fd = mkstemps(path, (int)strlen(suffix));
	assert_true(fd >= 0);
	for (size_t at = 0; at < n; at += PAGE) {
		memset(page, (int)(at / PAGE + 1), PAGE);
		assert_true(write(fd, page, n - at < PAGE ? n - at : PAGE) > 0);
	}
	return fd;
}

static void names(void **state)
{
	(void)state;
	assert_true(source_is_weights_name("/models/llama.gguf"));
	assert_true(source_is_weights_name("/m/model-00001-of-00002.safetensors"));
	assert_true(source_is_weights_name("/m/pytorch_model.bin"));
	assert_true(source_is_weights_name("/m/a.onnx_data"));
	assert_false(source_is_weights_name("/m/a.gguf.txt"));
	assert_false(source_is_weights_name("/usr/lib/libc.so.6"));
}

static void heads(void **state)
{
	const char safetensors[] = "\x40\0\0\0\0\0\0\0{\"a\":1}", *why;
	struct source s;
	int fd = make_file(2 * PAGE, "");

	(void)state;
	assert_int_equal(source_look(fd, &s, &why), 0);
	assert_string_equal(s.path, path);
	assert_int_equal(s.size, 2 * PAGE);
	assert_false(source_is_weights(fd, &s));
	assert_int_equal(pwrite(fd, "GGUF\3", 5, 0), 5);
	assert_true(source_is_weights(fd, &s));
	assert_int_equal(pwrite(fd, safetensors, 9, 0), 9);
	assert_true(source_is_weights(fd, &s));
	/* Its header would not fit into the file. */
	assert_int_equal(pwrite(fd, "\0\0\1", 3, 1), 3);
	assert_false(source_is_weights(fd, &s));
	close(fd);
	unlink(path);
	fd = open("/dev/null", O_RDONLY);
	assert_int_not_equal(source_look(fd, &s, &why), 0);
	close(fd);
	fd = open("/proc/self/maps", O_RDONLY);
	assert_int_not_equal(source_look(fd, &s, &why), 0);
	close(fd);
}

static void identity(void **state)
{
	struct source look, *a, *b;
	const char *why;
	int fd = make_file(3 * PAGE, ".bin");

	(void)state;
	assert_int_equal(source_look(fd, &look, &why), 0);
	a = source_get(&look);
	b = source_get(&look);
	assert_ptr_equal(a, b);
	assert_int_equal(a->refs, 2);
	source_put(b);
	assert_int_equal(source_open(a, -1), 0);
	assert_ptr_equal(source_at(0), a);
	assert_false(source_changed(a));
	assert_int_equal(ftruncate(fd, PAGE), 0);
	assert_true(source_changed(a));
	assert_false(source_changed(a));
	assert_int_equal(a->size, PAGE);
	source_put(a);
	assert_null(source_at(0));
	/* Another file than was mapped is not opened. */
	a = source_get(&look);
	assert_int_equal(source_open(a, -1), -ESTALE);
	source_put(a);
	close(fd);
	unlink(path);
}

static struct source *open_one(int *fd)
{
	struct source look;
	const char *why;

	*fd = make_file(PAGE, ".bin");
	assert_int_equal(source_look(*fd, &look, &why), 0);
	struct source *s = source_get(&look);
	assert_int_equal(source_open(s, *fd), 0);
	unlink(path);
	return s;
}

/* A child lets go of one before it has descriptors: neither are the program's closed, nor do
 * the others get each other's. */
static void forked(void **state)
{
	int fd[3], parents[3], fds[4], i;
	struct source *s[3];

	(void)state;
	for (i = 0; i < 3; i++)
		s[i] = open_one(&fd[i]);
	assert_int_equal(source_descriptors(fds, 2), -E2BIG);
	assert_int_equal(source_descriptors(fds, 4), 3);
	for (i = 0; i < 3; i++) {
		parents[i] = s[i]->fd;
		fds[i] = dup(fds[i]);
	}
	source_forget();
	source_put(s[1]);
	assert_true(fcntl(parents[1], F_GETFD) >= 0);
	assert_int_equal(source_forked(fds), 3);
	assert_int_equal(s[0]->fd, fds[0]);
	assert_int_equal(s[2]->fd, fds[2]);
	assert_int_equal(fcntl(fds[1], F_GETFD), -1);
	source_put(s[0]);
	source_put(s[2]);
	for (i = 0; i < 3; i++) {
		close(parents[i]);
		close(fd[i]);
	}
}

static void address(void **state)
{
	struct source look = { .ino = 7, .fd = -1 }, other = { .ino = 8, .fd = -1 };
	struct source *a = source_get(&look), *b = source_get(&other);
	uint64_t offset;

	(void)state;
	assert_ptr_equal(source_of(source_address(b, 123 * (uint64_t)PAGE), &offset), b);
	assert_int_equal(offset, 123 * PAGE);
	assert_true(source_is_address(source_address(a, 0)));
	assert_false(source_is_address((1ull << 60)));
	source_put(a);
	source_put(b);
}

/* --- the queue, over one of a store that ends all at once --- */

static unsigned stored;

static int store_submit(struct emf_queue *q, struct emf_io *io)
{
	(void)q;
	stored++;
	io->status = 0;
	return 0;
}

static int store_poll(struct emf_queue *q)
{
	(void)q;
	return 0;
}

static int store_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	(void)q;
	(void)fds;
	(void)max;
	return 0;
}

static void store_close(struct emf_queue *q)
{
	(void)q;
}

static void ended(struct emf_io *io)
{
	*(bool *)io->user = true;
}

static int read_through(struct emf_queue *q, const struct source *s, uint64_t off, char *buf,
			size_t len)
{
	bool done = false;
	struct emf_io io = {
		.op = EMF_READ,
		.offset = source_address(s, off),
		.length = len,
		.buf = buf,
		.done = ended,
		.user = &done,
	};
	struct pollfd fds[4];

	assert_int_equal(q->ops->submit(q, &io), 0);
	assert_int_equal(q->inflight, 1);
	while (!done) {
		int n = q->ops->pollfds(q, fds, 4);
		assert_true(poll(fds, (nfds_t)n, 5000) == 1 || !n);
		q->ops->poll(q);
	}
	assert_int_equal(q->inflight, 0);
	return io.status;
}

static void reads(void **state)
{
	static const struct emf_queue_ops ops = { store_submit, store_poll, store_pollfds, store_close };
	struct emf_queue store = { .ops = &ops }, *q = &store;
	struct emf_io to_store = { .offset = 5 * PAGE };
	const size_t size = 70 * PAGE + 100;
	struct source look, *s;
	const char *why;
	char *buf = NULL;
	int fd = make_file(size, ".gguf");

	(void)state;
	assert_int_equal(posix_memalign((void **)&buf, PAGE, 128 * PAGE), 0);
	assert_int_equal(source_look(fd, &look, &why), 0);
	s = source_get(&look);
	assert_int_equal(source_open(s, -1), 0);
	assert_int_equal(source_queue_wrap(&q, 4), 0);
	assert_int_equal(q->ops->submit(q, &to_store), 0);
	assert_int_equal(stored, 1);
	for (int direct = 1; direct >= 0; direct--) {
		memset(buf, 0xee, 128 * PAGE);
		assert_int_equal(read_through(q, s, 3 * PAGE, buf, 64 * PAGE), 0);
		for (unsigned i = 0; i < 64; i++)
			assert_int_equal(buf[i * PAGE + 7], (char)(i + 4));
		/* Zeros beyond the end. */
		assert_int_equal(read_through(q, s, 68 * PAGE, buf, 8 * PAGE), 0);
		assert_int_equal(buf[2 * PAGE + 99], 71);
		for (size_t i = 2 * PAGE + 100; i < 8 * PAGE; i++)
			assert_int_equal(buf[i], 0);
		/* And again by the page cache. */
		fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) & ~O_DIRECT);
		s->direct = false;
	}
	assert_int_equal(ftruncate(fd, 10 * PAGE), 0);
	assert_int_equal(read_through(q, s, 2 * PAGE, buf, 4 * PAGE), 0);
	assert_int_equal(read_through(q, s, 8 * PAGE, buf, 4 * PAGE), -ESTALE);
	assert_int_equal(read_through(q, s, 20 * PAGE, buf, 4 * PAGE), -ESTALE);
	q->ops->close(q);
	source_put(s);
	free(buf);
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),   cmocka_unit_test(heads), cmocka_unit_test(identity),
		cmocka_unit_test(address), cmocka_unit_test(reads), cmocka_unit_test(forked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
