/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls on cold memory must behave as on local memory. See rows.h.
 */
#include "rows.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

static void write_all(int fd, const char *p, size_t n, size_t piece)
{
	while (n) {
		ssize_t k = SYS(write(fd, p, n < piece ? n : piece));
		p += k;
		n -= (size_t)k;
	}
}

static void read_all(int fd, char *p, size_t n, size_t piece)
{
	while (n) {
		ssize_t k = SYS(read(fd, p, n < piece ? n : piece));
		if (!k)
			die("file too short");
		p += k;
		n -= (size_t)k;
	}
}

/* What the file holds, read into memory that is never cold. */
static void check_file(int fd, size_t size, unsigned version)
{
	char page[PAGE] __attribute__((aligned(4096)));

	for (size_t i = 0; i < size / PAGE; i++) {
		if (SYS(pread(fd, page, PAGE, (off_t)(i * PAGE))) != (ssize_t)PAGE)
			die("file too short");
		page_check(page, i, version, SEED, "file");
	}
}

static void fill_file(int fd, size_t size, unsigned version)
{
	char page[PAGE] __attribute__((aligned(4096)));

	for (size_t i = 0; i < size / PAGE; i++) {
		page_fill(page, i, version, SEED);
		if (SYS(pwrite(fd, page, PAGE, (off_t)(i * PAGE))) != (ssize_t)PAGE)
			die("short write");
	}
}

static void row_write(size_t size)
{
	char *p = filled(size);
	int fd = SYS(temp_file(O_RDWR));

	/* Not a multiple of anything. */
	write_all(fd, p, size, 1000003);
	check_file(fd, size, 1);
	check_pages(p, 0, size / PAGE, 1, "after write");
}

static void row_read(size_t size)
{
	char *p = filled(size);
	int fd = SYS(temp_file(O_RDWR));

	fill_file(fd, size, 2);
	read_all(fd, p, size, 1000003);
	check_pages(p, 0, size / PAGE, 2, "read");
}

static void row_stdio(size_t size)
{
	char *p = filled(size);
	FILE *f = fdopen(SYS(temp_file(O_RDWR)), "r+");

	CHECK(f && fwrite(p, 1, size, f) == size && !fflush(f), "fwrite");
	check_file(fileno(f), size, 1);
	fill_pages(p, 0, size / PAGE, 3);
	rewind(f);
	CHECK(fread(p, 1, size, f) == size, "fread");
	check_pages(p, 0, size / PAGE, 1, "fread");
}

static void row_odirect(size_t size)
{
	char *p = filled(size);
	int fd = temp_file(O_RDWR | O_DIRECT);
	const size_t piece = 8u << 20;

	if (fd < 0)
		skip("no O_DIRECT in the directory for temporary files");
	for (size_t at = 0; at < size; at += piece)
		CHECK(pwrite(fd, p + at, piece, (off_t)at) == (ssize_t)piece, "pwrite at %zu: %s", at,
		      strerror(errno));
	SYS(fcntl(fd, F_SETFL, 0)); /* 4 KiB reads are slow with O_DIRECT */
	check_file(fd, size, 1);
	SYS(fcntl(fd, F_SETFL, O_DIRECT));
	fill_pages(p, 0, size / PAGE, 2);
	for (size_t at = 0; at < size; at += piece)
		CHECK(pread(fd, p + at, piece, (off_t)at) == (ssize_t)piece, "pread at %zu: %s", at,
		      strerror(errno));
	check_pages(p, 0, size / PAGE, 1, "pread O_DIRECT");
}

/* Pieces of pages, in an order of their own, whose iovec is cold as well. */
static void row_vectors(size_t size)
{
	enum { N = 512 };
	size_t n = size / PAGE;
	struct iovec *iov = (struct iovec *)map_anon(N * sizeof(*iov));
	char *p = filled(size);
	int fd = SYS(temp_file(O_RDWR));

	for (size_t i = 0; i < N; i++)
		iov[i] = (struct iovec){p + i * 7919 % n * PAGE, PAGE};
	chill(size);
	CHECK(SYS(writev(fd, iov, N)) == N * PAGE, "short writev");
	for (size_t i = 0; i < N; i++) {
		char page[PAGE];
		CHECK(SYS(pread(fd, page, PAGE, (off_t)(i * PAGE))) == PAGE, "short pread");
		page_check(page, i * 7919 % n, 1, SEED, "writev");
		page_fill(page, i * 7919 % n, 2, SEED);
		CHECK(SYS(pwrite(fd, page, PAGE, (off_t)(i * PAGE))) == PAGE, "short pwrite");
	}
	chill(size);
	SYS(lseek(fd, 0, SEEK_SET));
	CHECK(SYS(readv(fd, iov, N)) == N * PAGE, "short readv");
	for (size_t i = 0; i < N; i++)
		page_check(iov[i].iov_base, i * 7919 % n, 2, SEED, "readv");
	CHECK(SYS(preadv(fd, iov, N, 0)) == N * PAGE, "short preadv");
	CHECK(SYS(pwritev(fd, iov, N, 0)) == N * PAGE, "short pwritev");
}

struct sender {
	int fd;
	const char *p;
	size_t size;
};

static void *send_all(void *arg)
{
	struct sender *s = arg;

	for (size_t at = 0; at < s->size;) {
		struct iovec iov = {(char *)s->p + at, s->size - at};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		/* Both ways to send, turn about. */
		ssize_t n = at / 65536 % 2 ? sendmsg(s->fd, &msg, 0)
					   : send(s->fd, s->p + at, s->size - at < 300000 ? s->size - at : 300000, 0);
		at += (size_t)SYS(n);
	}
	return NULL;
}

static void row_sockets(size_t size)
{
	char *from = filled(size / 2), *to = filled(size / 2);
	struct sender s = {.p = from, .size = size / 2};
	pthread_t t;
	int sv[2];

	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	s.fd = sv[0];
	memset(to, 0xaa, size / 2);
	CHECK(!pthread_create(&t, NULL, send_all, &s), "thread");
	for (size_t at = 0; at < size / 2;) {
		struct iovec iov = {to + at, size / 2 - at};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n = at / 65536 % 2 ? recvmsg(sv[1], &msg, 0)
					   : recv(sv[1], to + at, size / 2 - at, 0);
		CHECK(SYS(n) > 0, "closed");
		at += (size_t)n;
	}
	pthread_join(t, NULL);
	check_pages(to, 0, size / 2 / PAGE, 1, "received");
}

/* Paths, timespecs, pollfds, stat buffers: what calls read and write in small. */
static void row_small(size_t size)
{
	struct small {
		char path[64];
		struct stat st;
		struct timespec ts;
		struct pollfd pfd;
		int fds[2];
		char text[64];
	} *s;
	size_t n = size / PAGE, step = n / 64;
	char *p = filled(size);

	for (size_t i = 0; i < n; i += step)
		strcpy(((struct small *)(p + i * PAGE))->path, "/dev/null");
	chill(size);
	for (size_t i = 0; i < n; i += step) {
		s = (struct small *)(p + i * PAGE);
		switch (i / step % 6) {
		case 0:
			SYS(close(SYS(open(s->path, O_RDWR))));
			break;
		case 1:
			SYS(stat("/dev/null", &s->st));
			CHECK(S_ISCHR(s->st.st_mode), "stat");
			break;
		case 2:
			SYS(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &s->ts));
			CHECK(s->ts.tv_nsec < 1000000000, "clock_gettime");
			s->ts = (struct timespec){0, 1000};
			SYS(nanosleep(&s->ts, &s->ts));
			break;
		case 3:
			SYS(pipe(s->fds));
			s->pfd = (struct pollfd){s->fds[0], POLLIN, 0};
			CHECK(write(s->fds[1], "x", 1) == 1, "pipe");
			CHECK(SYS(poll(&s->pfd, 1, 1000)) == 1 && s->pfd.revents == POLLIN, "poll");
			close(s->fds[0]);
			close(s->fds[1]);
			break;
		case 4:
			CHECK(SYS(readlink("/proc/self/fd/0", s->text, sizeof(s->text))) > 0, "readlink");
			break;
		case 5:
			CHECK(getcwd(p + i * PAGE, PAGE), "getcwd: %s", strerror(errno));
			break;
		}
	}
}

static atomic_int futex_waits, futex_woken;

static void *futex_waiter(void *arg)
{
	atomic_fetch_add(&futex_waits, 1);
	while (atomic_load((_Atomic int *)arg) == 0)
		if (syscall(SYS_futex, arg, FUTEX_WAIT, 0, NULL, NULL, 0) && errno != EAGAIN &&
		    errno != EINTR)
			die("FUTEX_WAIT: %s", strerror(errno));
	atomic_fetch_add(&futex_woken, 1);
	return NULL;
}

/* The word that threads sleep on goes far while they sleep. */
static void row_futex(size_t size)
{
	enum { N = 16 };
	size_t step = size / N;
	char *p = filled(size);
	pthread_t t[N];

	for (size_t i = 0; i < N; i++)
		*(_Atomic int *)(p + i * step + 64) = 0;
	chill(size);
	for (size_t i = 0; i < N; i++)
		CHECK(!pthread_create(&t[i], NULL, futex_waiter, p + i * step + 64), "thread");
	while (atomic_load(&futex_waits) < N)
		sched_yield();
	chill(size);
	CHECK(atomic_load(&futex_woken) == 0, "woken too early");
	for (size_t i = 0; i < N; i++) {
		*(_Atomic int *)(p + i * step + 64) = 1;
		SYS(syscall(SYS_futex, p + i * step + 64, FUTEX_WAKE, 1, NULL, NULL, 0));
	}
	for (size_t i = 0; i < N; i++)
		pthread_join(t[i], NULL);
}

struct shared {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned turn;
};

struct player {
	struct shared *s;
	unsigned me;
};

static void *play(void *arg)
{
	struct player *pl = arg;

	for (unsigned i = 0; i < 50; i++) {
		pthread_mutex_lock(&pl->s->lock);
		while (pl->s->turn % 2 != pl->me)
			pthread_cond_wait(&pl->s->changed, &pl->s->lock);
		pl->s->turn++;
		pthread_cond_broadcast(&pl->s->changed);
		pthread_mutex_unlock(&pl->s->lock);
	}
	return NULL;
}

/* Mutexes and condition variables in memory that goes far while they are in use. */
static void row_mutex(size_t size)
{
	enum { N = 4 };
	struct player pl[N][2];
	pthread_t t[N][2];
	char *p = filled(size);

	for (size_t i = 0; i < N; i++) {
		struct shared *s = (struct shared *)(p + i * (size / N));

		memset(s, 0, sizeof(*s));
		pthread_mutex_init(&s->lock, NULL);
		pthread_cond_init(&s->changed, NULL);
	}
	chill(size);
	for (size_t i = 0; i < N; i++)
		for (unsigned k = 0; k < 2; k++) {
			pl[i][k] = (struct player){(struct shared *)(p + i * (size / N)), k};
			CHECK(!pthread_create(&t[i][k], NULL, play, &pl[i][k]), "thread");
		}
	chill(size);
	for (size_t i = 0; i < N; i++) {
		pthread_join(t[i][0], NULL);
		pthread_join(t[i][1], NULL);
		CHECK(pl[i][0].s->turn == 100, "%u turns", pl[i][0].s->turn);
	}
}

static void row_vm_readv(size_t size)
{
	char *p = filled(size), page[PAGE];
	struct iovec mine = {page, PAGE};

	for (size_t i = 0; i < size / PAGE; i++) {
		struct iovec its = {p + i * PAGE, PAGE};

		CHECK(SYS(process_vm_readv(getpid(), &mine, 1, &its, 1, 0)) == PAGE, "short");
		page_check(page, i, 1, SEED, "process_vm_readv");
		page_fill(page, i, 2, SEED);
		CHECK(SYS(process_vm_writev(getpid(), &mine, 1, &its, 1, 0)) == PAGE, "short");
	}
	check_pages(p, 0, size / PAGE, 2, "process_vm_writev");
}

/*
 * The kernel reads another memory than the caller's through a path that may not
 * wait for userfaultfd: EIO for what is away. Whatever it does return must be right.
 */
static void row_proc_mem(size_t size)
{
	char *p = filled(size), page[PAGE];
	int fd = SYS(open("/proc/self/mem", O_RDWR));

	for (size_t i = 0; i < size / PAGE; i++) {
		off_t at = (off_t)(uintptr_t)(p + i * PAGE);

		ssize_t k = pread(fd, page, PAGE, at);
		if (k < 0 && errno == EIO)
			skip("the kernel gives EIO for pages that are away");
		CHECK(k == PAGE, "page %zu: %s", i, strerror(errno));
		page_check(page, i, 1, SEED, "/proc/self/mem");
		page_fill(page, i, 2, SEED);
		CHECK(SYS(pwrite(fd, page, PAGE, at)) == PAGE, "short");
	}
	check_pages(p, 0, size / PAGE, 2, "/proc/self/mem");
}

/* Another process reads and writes our cold memory, as a debugger does. */
static void row_vm_readv_other(size_t size)
{
	char *p = filled(size);
	pid_t parent = getpid(), pid = SYS(fork());

	if (!pid) {
		char page[PAGE];
		struct iovec mine = {page, PAGE};

		for (size_t i = 0; i < size / PAGE; i++) {
			struct iovec its = {p + i * PAGE, PAGE};
			ssize_t k = process_vm_readv(parent, &mine, 1, &its, 1, 0);

			if (k < 0 && errno == EPERM)
				_exit(77);
			CHECK(k == PAGE, "process_vm_readv of page %zu: %s", i, strerror(errno));
			page_check(page, i, 1, SEED, "process_vm_readv");
			page_fill(page, i, 2, SEED);
			CHECK(process_vm_writev(parent, &mine, 1, &its, 1, 0) == PAGE, "page %zu: %s", i,
			      strerror(errno));
		}
		_exit(0);
	}
	int status;
	SYS(waitpid(pid, &status, 0));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip("not allowed to read another process's memory");
	CHECK(status == 0, "the reader's status is %x", (unsigned)status);
	check_pages(p, 0, size / PAGE, 2, "process_vm_writev");
}

/*
 * A pipe that refers to our pages (vmsplice) must still deliver their content
 * after they went far.
 */
static void row_vmsplice(size_t size)
{
	enum { N = 8 };
	char *p = filled(size), page[PAGE];
	size_t step = size / PAGE / N;
	int fds[2];

	SYS(pipe(fds));
	for (size_t i = 0; i < N; i++) {
		struct iovec iov = {p + i * step * PAGE, PAGE};
		CHECK(SYS(vmsplice(fds[1], &iov, 1, 0)) == PAGE, "short vmsplice");
	}
	chill(size);
	check_pages(p, 0, size / PAGE, 1, "after vmsplice");
	chill(size);
	for (size_t i = 0; i < N; i++) {
		CHECK(SYS(read(fds[0], page, PAGE)) == PAGE, "short read");
		page_check(page, i * step, 1, SEED, "vmsplice");
	}
}

/* The kernel writes into a page that was registered with it: the page must not have moved. */
static void row_registered(size_t size)
{
	enum { N = 8 };
	const size_t piece = 1u << 20;
	struct io_uring_params par = {0};
	struct iovec iov[N];
	char *p = filled(size);
	int fd = SYS(temp_file(O_RDWR));
	int ring = (int)syscall(SYS_io_uring_setup, N, &par);

	if (ring < 0)
		skip("no io_uring");
	fill_file(fd, N * piece, 2);
	for (size_t i = 0; i < N; i++)
		iov[i] = (struct iovec){p + i * (size / N), piece};
	if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, iov, N))
		skip("buffers can't be registered with io_uring");
	chill(size);
	check_pages(p, 0, size / PAGE, 1, "after registration");

	char *sq = SYS(mmap(NULL, par.sq_off.array + par.sq_entries * 4, PROT_READ | PROT_WRITE,
			    MAP_SHARED, ring, IORING_OFF_SQ_RING));
	struct io_uring_sqe *sqe = SYS(mmap(NULL, par.sq_entries * sizeof(*sqe),
					    PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES));
	for (unsigned i = 0; i < N; i++) {
		sqe[i] = (struct io_uring_sqe){
			.opcode = IORING_OP_READ_FIXED,
			.fd = fd,
			.off = i * piece,
			.addr = (uintptr_t)iov[i].iov_base,
			.len = (unsigned)piece,
			.buf_index = (uint16_t)i,
		};
		((unsigned *)(sq + par.sq_off.array))[i] = i;
	}
	atomic_store((_Atomic unsigned *)(sq + par.sq_off.tail), N);
	CHECK(SYS(syscall(SYS_io_uring_enter, ring, N, N, IORING_ENTER_GETEVENTS, NULL, 0)) == N,
	      "io_uring_enter");
	for (size_t i = 0; i < N; i++)
		for (size_t k = 0; k < piece / PAGE; k++)
			page_check((char *)iov[i].iov_base + k * PAGE, i * (piece / PAGE) + k, 2, SEED,
				   "registered buffer");
}

static const struct row rows[] = {
	{"write", row_write, true},
	{"read", row_read, true},
	{"stdio", row_stdio, true},
	{"odirect", row_odirect, true},
	{"vectors", row_vectors, true},
	{"sockets", row_sockets, true},
	{"small", row_small, true},
	{"futex", row_futex, true},
	{"mutex", row_mutex, true},
	{"vm-readv", row_vm_readv, true},
	{"vm-readv-other", row_vm_readv_other, true},
	{"proc-mem", row_proc_mem, true},
	{"vmsplice", row_vmsplice, true},
	{"registered", row_registered, true},
};

ROWS_MAIN(rows)
