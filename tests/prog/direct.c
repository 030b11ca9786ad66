/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads with O_DIRECT: the kernel writes to the pages themselves, whatever becomes of the mapping
 * meanwhile. Threads read big pieces of a file into memory that is cold, or is just leaving; each
 * piece has another content than what was there, so that nothing that came late goes unnoticed.
 * LINKED: with liburing and libaio. See rows.h.
 */
#include "rows.h"

#include <aio.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#ifdef LINKED
#include <liburing.h>
#endif

enum { THREADS = 4, ROUNDS = 4, PIECE = 5 << 20, DEPTH = 8 };

typedef ssize_t reader(int fd, char *p, size_t len, off_t at);

struct job {
	char *p;
	size_t size;
	off_t at; /* of the first version in the file; each version has all of the memory */
	size_t all;
	int file;
	reader *read;
};

/* Versions 1 and 2 of `size` bytes. */
static int versions(size_t size)
{
	char page[PAGE] __attribute__((aligned(4096)));
	int fd = SYS(temp_file(O_RDWR));

	for (size_t i = 0; i < 2 * size / PAGE; i++) {
		page_fill(page, i % (size / PAGE), 1 + i / (size / PAGE), SEED);
		CHECK(SYS(pwrite(fd, page, PAGE, (off_t)(i * PAGE))) == (ssize_t)PAGE, "short");
	}
	SYS(fdatasync(fd));
	return fd;
}

/* A description of its own. */
static int open_direct(int file)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	int fd = open(path, O_RDONLY | O_DIRECT);
	if (fd < 0)
		skip("no O_DIRECT in the directory for temporary files");
	return fd;
}

static void check_version(const char *p, size_t first, size_t n, unsigned version)
{
	for (size_t i = 0; i < n; i++)
		page_check(p + i * PAGE, first + i, version, SEED, "read with O_DIRECT");
}

static void *read_versions(void *arg)
{
	const struct job *j = arg;
	int fd = open_direct(j->file);

	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned version = 2 - round % 2;
		off_t from = j->at + (off_t)(j->all * (version - 1));
		for (size_t done = 0; done < j->size;) {
			size_t n = j->size - done < PIECE ? j->size - done : PIECE;
			ssize_t got = SYS(j->read(fd, j->p + done, n, from + (off_t)done));
			CHECK(got > 0 && got % (ssize_t)PAGE == 0, "%zd bytes of %zu", got, n);
			check_version(j->p + done, ((size_t)j->at + done) / PAGE, (size_t)got / PAGE,
				      version);
			done += (size_t)got;
		}
	}
	close(fd);
	return NULL;
}

/* Each thread reads into a part of the memory. */
static void by_threads(size_t size, reader *how)
{
	char *p = filled(size);
	int file = versions(size);
	pthread_t t[THREADS];
	struct job j[THREADS];

	for (size_t i = 0; i < THREADS; i++) {
		size_t part = size / THREADS;
		j[i] = (struct job){p + i * part, part, (off_t)(i * part), size, file, how};
		CHECK(!pthread_create(&t[i], NULL, read_versions, j + i), "thread");
	}
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	check_version(p, 0, size / PAGE, 2 - (ROUNDS - 1) % 2);
}

static ssize_t by_pread(int fd, char *p, size_t len, off_t at)
{
	return pread(fd, p, len, at);
}

static void row_pread(size_t size)
{
	by_threads(size, by_pread);
}

static ssize_t by_read(int fd, char *p, size_t len, off_t at)
{
	SYS(lseek(fd, at, SEEK_SET));
	return read(fd, p, len);
}

static void row_read(size_t size)
{
	by_threads(size, by_read);
}

/* Three parts, the first behind the others. */
static struct iovec *three(struct iovec *v, char *p, size_t len)
{
	size_t n = len / 3 & ~(PAGE - 1);

	v[0] = (struct iovec){p, n};
	v[1] = (struct iovec){p + n, len - 2 * n};
	v[2] = (struct iovec){p + len - n, n};
	return v;
}

static ssize_t by_readv(int fd, char *p, size_t len, off_t at)
{
	struct iovec v[3];

	SYS(lseek(fd, at, SEEK_SET));
	return readv(fd, three(v, p, len), 3);
}

static void row_readv(size_t size)
{
	by_threads(size, by_readv);
}

/* As many as a vector may be long, which nobody keeps in a few entries. */
static ssize_t by_preadv(int fd, char *p, size_t len, off_t at)
{
	struct iovec v[1024];
	size_t n = 0;

	for (size_t done = 0; done < len && n < 1024; n++, done += PAGE)
		v[n] = (struct iovec){p + done, PAGE};
	return preadv(fd, v, (int)n, at);
}

static void row_preadv(size_t size)
{
	by_threads(size, by_preadv);
}

static ssize_t by_preadv2(int fd, char *p, size_t len, off_t at)
{
	struct iovec v[3];

	return preadv2(fd, three(v, p, len), 3, at, 0);
}

static void row_preadv2(size_t size)
{
	by_threads(size, by_preadv2);
}

static ssize_t by_number(int fd, char *p, size_t len, off_t at)
{
	struct iovec v[3];

	switch (at / PIECE % 3) {
	case 0:
		return syscall(SYS_pread64, fd, p, len, at);
	case 1:
		return syscall(SYS_preadv, fd, three(v, p, len), 3, at, 0);
	default:
		SYS(lseek(fd, at, SEEK_SET));
		return syscall(SYS_read, fd, p, len);
	}
}

static void row_number(size_t size)
{
	by_threads(size, by_number);
}

/* Many transfers at once: `submit` starts one, `wait` returns the index of one that has ended. */
struct async {
	int fd;
	void (*submit)(struct async *a, size_t i, char *p, size_t len, off_t at);
	size_t (*wait)(struct async *a);
	aio_context_t context;
	struct iocb iocb[DEPTH];
#ifdef LINKED
	struct io_uring library;
#endif
	int ring;
	char *rings;
	struct io_uring_params par;
	struct io_uring_sqe *sqe;
	struct aiocb aiocb[DEPTH];
};

static void run_async(struct async *a, char *p, size_t size)
{
	const size_t len = 1 << 20, pieces = size / len;
	size_t at[DEPTH];

	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned version = 2 - round % 2;
		size_t next = 0, ended = 0;
		for (; next < DEPTH; next++) {
			at[next] = next;
			a->submit(a, next, p + next * len, len, (off_t)(size * (version - 1) + next * len));
		}
		for (; ended < pieces; ended++) {
			size_t i = a->wait(a), piece = at[i];
			check_version(p + piece * len, piece * (len / PAGE), len / PAGE, version);
			if (next == pieces)
				continue;
			at[i] = next;
			a->submit(a, i, p + next * len, len, (off_t)(size * (version - 1) + next * len));
			next++;
		}
	}
	check_version(p, 0, size / PAGE, 2 - (ROUNDS - 1) % 2);
}

static void aio_submit(struct async *a, size_t i, char *p, size_t len, off_t at)
{
	struct iocb *list = a->iocb + i;

	a->iocb[i] = (struct iocb){
		.aio_data = i,
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)a->fd,
		.aio_buf = (uintptr_t)p,
		.aio_nbytes = len,
		.aio_offset = at,
	};
	CHECK(SYS(syscall(SYS_io_submit, a->context, 1, &list)) == 1, "io_submit");
}

static size_t aio_wait(struct async *a)
{
	struct io_event e;

	CHECK(SYS(syscall(SYS_io_getevents, a->context, 1, 1, &e, NULL)) == 1, "io_getevents");
	CHECK(e.res == 1 << 20, "read: %ld", (long)e.res);
	return e.data;
}

static void row_aio(size_t size)
{
	static struct async a;
	char *p = filled(size);

	a = (struct async){.submit = aio_submit, .wait = aio_wait, .fd = open_direct(versions(size))};
	if (syscall(SYS_io_setup, DEPTH, &a.context))
		skip("no AIO");
	run_async(&a, p, size);
	SYS(syscall(SYS_io_destroy, a.context));
}

static void ring_open(struct async *a)
{
	a->ring = (int)syscall(SYS_io_uring_setup, DEPTH, &a->par);
	if (a->ring < 0)
		skip("no io_uring");
	size_t len = a->par.cq_off.cqes + a->par.cq_entries * sizeof(struct io_uring_cqe),
	       sq = a->par.sq_off.array + a->par.sq_entries * sizeof(unsigned);
	if (!(a->par.features & IORING_FEAT_SINGLE_MMAP))
		skip("an io_uring of two mappings");
	a->rings = SYS(mmap(NULL, len > sq ? len : sq, PROT_READ | PROT_WRITE, MAP_SHARED, a->ring,
			    IORING_OFF_SQ_RING));
	a->sqe = SYS(mmap(NULL, a->par.sq_entries * sizeof(*a->sqe), PROT_READ | PROT_WRITE,
			  MAP_SHARED, a->ring, IORING_OFF_SQES));
}

static void ring_submit(struct async *a, size_t i, char *p, size_t len, off_t at)
{
	unsigned *tail = (unsigned *)(a->rings + a->par.sq_off.tail),
		 *array = (unsigned *)(a->rings + a->par.sq_off.array),
		 slot = *tail & (a->par.sq_entries - 1);

	a->sqe[slot] = (struct io_uring_sqe){
		.opcode = IORING_OP_READ,
		.fd = a->fd,
		.off = (uint64_t)at,
		.addr = (uintptr_t)p,
		.len = (unsigned)len,
		.user_data = i,
	};
	array[slot] = slot;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	CHECK(SYS(syscall(SYS_io_uring_enter, a->ring, 1, 0, 0, NULL, 0)) == 1, "io_uring_enter");
}

static size_t ring_wait(struct async *a)
{
	unsigned *head = (unsigned *)(a->rings + a->par.cq_off.head),
		 *tail = (unsigned *)(a->rings + a->par.cq_off.tail);
	struct io_uring_cqe *cqe = (struct io_uring_cqe *)(a->rings + a->par.cq_off.cqes);

	while (__atomic_load_n(tail, __ATOMIC_ACQUIRE) == *head)
		SYS(syscall(SYS_io_uring_enter, a->ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0));
	cqe += *head & (a->par.cq_entries - 1);
	CHECK(cqe->res == 1 << 20, "read: %d", cqe->res);
	size_t i = cqe->user_data;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return i;
}

static void row_ring(size_t size)
{
	static struct async a;
	char *p = filled(size);

	a = (struct async){.submit = ring_submit, .wait = ring_wait, .fd = open_direct(versions(size))};
	ring_open(&a);
	run_async(&a, p, size);
	close(a.ring);
}

/* The ring is there first, and the file becomes one of O_DIRECT later. */
static void row_ring_first(size_t size)
{
	static struct async a;
	char *p = filled(size);

	a = (struct async){.submit = ring_submit, .wait = ring_wait};
	ring_open(&a);
	a.fd = versions(size);
	chill(size);
	if (fcntl(a.fd, F_SETFL, O_DIRECT))
		skip("no O_DIRECT in the directory for temporary files");
	run_async(&a, p, size);
	close(a.ring);
}

static void posix_submit(struct async *a, size_t i, char *p, size_t len, off_t at)
{
	a->aiocb[i] = (struct aiocb){
		.aio_fildes = a->fd,
		.aio_buf = p,
		.aio_nbytes = len,
		.aio_offset = at,
	};
	SYS(aio_read(a->aiocb + i));
}

static size_t posix_wait(struct async *a)
{
	static size_t i;
	const struct aiocb *one;

	i = (i + 1) % DEPTH;
	while (!a->aiocb[i].aio_buf)
		i = (i + 1) % DEPTH;
	one = a->aiocb + i;
	while (aio_error(one) == EINPROGRESS)
		SYS(aio_suspend(&one, 1, NULL));
	CHECK(aio_return(a->aiocb + i) == 1 << 20, "aio_read");
	a->aiocb[i].aio_buf = NULL;
	return i;
}

/* libc's own: threads that read behind the symbol. */
static void row_posix_aio(size_t size)
{
	static struct async a;
	char *p = filled(size);

	a = (struct async){
		.submit = posix_submit, .wait = posix_wait, .fd = open_direct(versions(size))};
	run_async(&a, p, size);
}

#ifdef LINKED
static void library_submit(struct async *a, size_t i, char *p, size_t len, off_t at)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&a->library);

	io_uring_prep_read(sqe, a->fd, p, (unsigned)len, (uint64_t)at);
	sqe->user_data = i;
	CHECK(io_uring_submit(&a->library) == 1, "io_uring_submit");
}

static size_t library_wait(struct async *a)
{
	struct io_uring_cqe *cqe;

	CHECK(!io_uring_wait_cqe(&a->library, &cqe) && cqe->res == 1 << 20, "read");
	size_t i = cqe->user_data;
	io_uring_cqe_seen(&a->library, cqe);
	return i;
}

static void row_liburing(size_t size)
{
	static struct async a;
	char *p = filled(size);

	a = (struct async){
		.submit = library_submit, .wait = library_wait, .fd = open_direct(versions(size))};
	if (io_uring_queue_init(DEPTH, &a.library, 0))
		skip("no io_uring");
	run_async(&a, p, size);
	io_uring_queue_exit(&a.library);
}

int io_setup(int n, aio_context_t *context);
int io_queue_init(int n, aio_context_t *context);

static void by_libaio(size_t size, int (*setup)(int n, aio_context_t *context))
{
	static struct async a;
	char *p = filled(size);

	a = (struct async){.submit = aio_submit, .wait = aio_wait, .fd = open_direct(versions(size))};
	if (setup(DEPTH, &a.context))
		skip("no AIO");
	run_async(&a, p, size);
	SYS(syscall(SYS_io_destroy, a.context));
}

static void row_libaio(size_t size)
{
	by_libaio(size, io_setup);
}

static void row_libaio_queue(size_t size)
{
	by_libaio(size, io_queue_init);
}
#endif

static void *read_for_ever(void *arg)
{
	struct job *j = arg;
	int fd = open_direct(j->file);

	for (;;)
		SYS(pread(fd, j->p, j->size, 0));
	return NULL;
}

/* What a call held that never returned leaves again. */
static void row_cancel(size_t size)
{
	char *p = filled(size);
	unsigned char in[1];
	struct job j = {.p = p, .size = 1 << 20, .file = versions(size)};

	for (unsigned i = 0; i < 50; i++) {
		pthread_t t;
		CHECK(!pthread_create(&t, NULL, read_for_ever, &j), "thread");
		usleep(mix(i) % 3000);
		CHECK(!pthread_cancel(t), "cancel");
		pthread_join(t, NULL);
	}
	/* Where memory leaves at all. */
	for (unsigned i = 0; getenv("TIERSTAT_OUT"); i++) {
		chill(size);
		SYS(mincore(p, PAGE, in));
		if (!(in[0] & 1))
			break;
		CHECK(i < 20, "it never leaves");
	}
}

static void *write_remotely(void *arg)
{
	enum { N = 100 };
	const struct job *j = arg;
	const size_t block = 2 << 20, first = (size_t)j->at / PAGE;
	char *buf = map_anon(N * PAGE);

	/* Some of each block. */
	for (unsigned version = 2; version < 10; version++)
		for (size_t at = 0; at < j->size; at += block) {
			struct iovec here = {buf, N * PAGE}, there = {j->p + at, N * PAGE};
			fill_pages(buf - (first * PAGE + at), first + at / PAGE, first + at / PAGE + N, version);
			CHECK(SYS(process_vm_writev(getpid(), &here, 1, &there, 1, 0)) == N * (ssize_t)PAGE,
			      "short");
			check_version(j->p + at, first + at / PAGE, N, version);
		}
	return NULL;
}

/* As by another process; parts of each block can't be written to. Not where all pages are copied. */
static void row_remote(size_t size)
{
	const size_t block = 2 << 20;
	char *p = filled(size);
	pthread_t t[THREADS];
	struct job j[THREADS];

	for (size_t at = block / 2; at < size; at += block)
		SYS(mprotect(p + at, block / 8, PROT_READ));
	for (size_t i = 0; i < THREADS; i++) {
		size_t part = size / THREADS;
		j[i] = (struct job){.p = p + i * part, .size = part, .at = (off_t)(i * part)};
		CHECK(!pthread_create(&t[i], NULL, write_remotely, j + i), "thread");
	}
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (size_t at = block / 2; at < size; at += block)
		check_version(p + at, at / PAGE, block / 2 / PAGE, 1);
}

static const struct row rows[] = {
#ifdef LINKED
	{"liburing", row_liburing, true},
	{"libaio", row_libaio, true},
	{"libaio-queue", row_libaio_queue, true},
#endif
	{"pread", row_pread, true},
	{"read", row_read, true},
	{"readv", row_readv, true},
	{"preadv", row_preadv, true},
	{"preadv2", row_preadv2, true},
	{"number", row_number, true},
	{"aio", row_aio, true},
	{"ring", row_ring, true},
	{"ring-first", row_ring_first, true},
	{"posix-aio", row_posix_aio, true},
	{"cancel", row_cancel, true},
	{"remote", row_remote, true},
};

ROWS_MAIN(rows)
