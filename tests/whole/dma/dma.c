/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is registered with a device, or that a socket sends without a copy, must
 * not leave; what is unregistered is managed again. See rows.h, and fake.c for the libraries.
 * LINKED: against them; else only against libc.
 */
#include "rows.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>

#ifndef SO_ZEROCOPY
#define SO_ZEROCOPY 60
#endif
#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif

enum { PIECE = 8 << 20 };

static size_t present(const char *p, size_t len)
{
	unsigned char in[PIECE / 4096 + 1];
	size_t n = 0;

	SYS(mincore((void *)((uintptr_t)p & ~(PAGE - 1)), len, in));
	for (size_t i = 0; i < len / PAGE; i++)
		n += in[i] & 1;
	return n * PAGE;
}

/* Without emfatier, or before it starts, memory never leaves, so it proves nothing. */
static bool leaves(void)
{
	return getenv("TIERSTAT_OUT");
}

static void expect_gone(const char *p, size_t len, size_t size, const char *when)
{
	for (int i = 0; leaves() && present(p, len) == len; i++) {
		CHECK(i < 10, "%s: never leaves", when);
		chill(size);
	}
}

static void expect_here(const char *p, size_t len, size_t size, const char *when)
{
	for (int i = 0; i < 3; i++) {
		chill(size);
		CHECK(present(p, len) == len, "%s: only %zu of %zu bytes are there", when, present(p, len),
		      len);
	}
}

/* A piece in the middle, not on a page's boundary and with its last page cut. */
static void registered(size_t size, void *(*reg)(char *p, size_t len), void (*unreg)(void *key))
{
	char *p = filled(size), *piece = p + (3 << 20) + 64;
	size_t pages = (3 << 20) / PAGE;

	expect_gone(piece, PIECE - PAGE, size, "before");
	void *key = reg(piece, PIECE - 128);
	CHECK(key, "register");
	expect_here(piece, PIECE, size, "registered");
	/* Again, by a second device; and a call that fails. */
	void *second = reg(piece + PAGE, PIECE - 2 * PAGE);
	CHECK(second, "register twice");
	CHECK(!reg(piece + 16 * PAGE, 5 * PAGE), "refused");
	expect_here(piece, PIECE, size, "registered twice");
	unreg(key);
	expect_here(piece + PAGE, PIECE - 2 * PAGE, size, "still registered");
	unreg(second);
	expect_gone(piece + 2 * PAGE, PIECE - 4 * PAGE, size, "unregistered");
	check_pages(p, 0, size / PAGE, 1, "after all");
	/* Registered again, as a cache of registrations does; freed before it is unregistered. */
	key = reg(piece, PIECE - 128);
	expect_here(piece, PIECE, size, "registered again");
	check_pages(p, 0, size / PAGE, 1, "registered again");
	CHECK(key, "register again");
	SYS(munmap(p, size));
	char *q = mmap(p, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unreg(key);
	CHECK(q != MAP_FAILED, "mmap");
	fill_pages(q, 0, pages, 2);
	chill(size);
	check_pages(q, 0, pages, 2, "shared memory at the same place");
}

#ifdef LINKED
#include <liburing.h>

void *ibv_reg_mr(void *pd, void *addr, size_t len, int access);
void *ibv_reg_mr_iova(void *pd, void *addr, size_t len, uint64_t iova, int access);
void *ibv_reg_mr_iova2(void *pd, void *addr, size_t len, uint64_t iova, unsigned access);
int ibv_dereg_mr(void *mr);
int cudaHostRegister(void *p, size_t len, unsigned flags);
int cudaHostUnregister(void *p);

static void *verbs(char *p, size_t len)
{
	static _Thread_local unsigned turn;

	switch (turn++ % 3) {
	case 0:
		return ibv_reg_mr(NULL, p, len, 1);
	case 1:
		return ibv_reg_mr_iova2(NULL, p, len, (uintptr_t)p, 1u << 20 | 1);
	default:
		return ibv_reg_mr_iova(NULL, p, len, (uintptr_t)p, 1);
	}
}

static void verbs_end(void *mr)
{
	CHECK(!ibv_dereg_mr(mr), "ibv_dereg_mr");
}

static void row_verbs(size_t size)
{
	registered(size, verbs, verbs_end);
}

static void *cuda(char *p, size_t len)
{
	return cudaHostRegister(p, len, 0) ? NULL : p;
}

static void cuda_end(void *p)
{
	CHECK(!cudaHostUnregister(p), "cudaHostUnregister");
}

static void row_cuda(size_t size)
{
	registered(size, cuda, cuda_end);
}

static void *on_demand(char *p, size_t len)
{
	return ibv_reg_mr(NULL, p, len, 1 << 6);
}

/* Not pinned, so it may leave; all of the address space may be asked for. */
static void row_on_demand(size_t size)
{
	char *p = filled(size);
	void *piece = on_demand(p, PIECE), *all = on_demand(NULL, SIZE_MAX & ~(2 * PAGE - 1));

	CHECK(piece && all, "register");
	expect_gone(p, PIECE, size, "on demand");
	verbs_end(all);
	verbs_end(piece);
	check_pages(p, 0, size / PAGE, 1, "after all");
}

static atomic_bool churn_end;

struct churner {
	char *p;
	size_t size;
	unsigned seed;
};

/* Registers and unregisters parts of a piece that overlap each other and other threads' parts. */
static void *churn(void *arg)
{
	struct churner *c = arg;
	uint64_t r = c->seed;
	void *key[4] = {0};

	for (unsigned i = 0; !churn_end; i++) {
		r = mix(r);
		size_t at = r % (c->size / 2), len = (r >> 32) % (c->size / 2 - 8 * PAGE) + 8 * PAGE;
		void **k = &key[i % 4];
		if (*k)
			verbs_end(*k);
		*k = verbs(c->p + at, len);
		CHECK(*k, "register");
		for (size_t page = 0; page < 4; page++) {
			size_t n = at / PAGE + 1 + page;
			page_check(c->p + n * PAGE, n, 1, SEED, "registered");
			CHECK(present(c->p + n * PAGE, PAGE), "a registered page is not there");
		}
	}
	for (unsigned i = 0; i < 4; i++)
		if (key[i])
			verbs_end(key[i]);
	return NULL;
}

static void row_churn(size_t size)
{
	enum { THREADS = 3 };
	char *p = filled(size);
	pthread_t t[THREADS];
	struct churner c[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		c[i] = (struct churner){p, size, i};
		CHECK(!pthread_create(&t[i], NULL, churn, c + i), "thread");
	}
	for (int i = 0; i < 12; i++) {
		pid_t pid = SYS(fork());
		if (!pid) {
			check_pages(p, 0, size / PAGE, 1, "in the child");
			SYS(munmap(p, size));
			_exit(0);
		}
		chill(size / 4);
		expect_child(pid, "child");
	}
	churn_end = true;
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	check_pages(p, 0, size / PAGE, 1, "after all");
}

/* The kernel reads a file into registered buffers while all else leaves. */
static void row_ring(size_t size)
{
	enum { N = 8 };
	const size_t piece = 1u << 20;
	struct io_uring ring;
	struct iovec iov[N];
	char *p = filled(size), page[PAGE] __attribute__((aligned(4096)));
	int fd = SYS(temp_file(O_RDWR)), r = io_uring_queue_init(N, &ring, 0);

	if (r)
		skip("no io_uring");
	for (size_t i = 0; i < N * piece / PAGE; i++) {
		page_fill(page, i, 2, SEED);
		CHECK(SYS(pwrite(fd, page, PAGE, (off_t)(i * PAGE))) == (ssize_t)PAGE, "pwrite");
	}
	for (size_t i = 0; i < N; i++)
		iov[i] = (struct iovec){p + i * (size / N), piece};
	for (int round = 0; round < 2; round++) {
		expect_gone(iov[2].iov_base, piece, size, round ? "unregistered" : "before");
		r = io_uring_register_buffers(&ring, iov, N);
		CHECK(!r, "io_uring_register_buffers: %s", strerror(-r));
		for (size_t i = 0; i < N; i++)
			CHECK(present(iov[i].iov_base, piece) == piece, "buffer %zu is not there", i);
		expect_here(iov[2].iov_base, piece, size, "registered");
		for (size_t i = 0; i < N; i++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
			io_uring_prep_read_fixed(sqe, fd, iov[i].iov_base, (unsigned)piece, i * piece, (int)i);
		}
		CHECK(io_uring_submit_and_wait(&ring, N) == N, "submit");
		for (size_t i = 0; i < N; i++) {
			struct io_uring_cqe *cqe;
			CHECK(!io_uring_wait_cqe(&ring, &cqe) && cqe->res == (int)piece, "read %zu", i);
			io_uring_cqe_seen(&ring, cqe);
		}
		chill(size);
		for (size_t i = 0; i < N; i++)
			for (size_t k = 0; k < piece / PAGE; k++)
				page_check((char *)iov[i].iov_base + k * PAGE, i * (piece / PAGE) + k, 2, SEED,
					   "registered buffer");
		memset(iov[3].iov_base, 0, piece);
		CHECK(!io_uring_unregister_buffers(&ring), "io_uring_unregister_buffers");
	}
	/* By the number of the ring, as a library may that makes its own ring. */
	r = io_uring_register((unsigned)ring.ring_fd, IORING_REGISTER_BUFFERS, iov, N);
	CHECK(r >= 0, "io_uring_register: %s", strerror(-r));
	expect_here(iov[2].iov_base, piece, size, "registered by number");
	r = io_uring_register((unsigned)ring.ring_fd, IORING_UNREGISTER_BUFFERS, NULL, 0);
	CHECK(r >= 0, "io_uring_register: %s", strerror(-r));
	expect_gone(iov[2].iov_base, piece, size, "unregistered by number");
	io_uring_queue_exit(&ring);
}
#else

static void *(*module_register)(void *, size_t);
static int (*module_unregister)(void *);

static void *module(char *p, size_t len)
{
	return module_register(p, len);
}

static void module_end(void *mr)
{
	CHECK(!module_unregister(mr), "unregister");
}

static void row_module(size_t size)
{
	void *dl = dlopen("libmodule.so", RTLD_NOW | RTLD_LOCAL);

	CHECK(dl, "%s", dlerror());
	module_register = (void *(*)(void *, size_t))dlsym(dl, "module_register");
	module_unregister = (int (*)(void *))dlsym(dl, "module_unregister");
	registered(size, module, module_end);
}

#define WEAK(name) extern __attribute__((weak)) int name(void);
#define NAMES(X)                                                                             \
	X(ibv_reg_mr)                                                                        \
	X(ibv_reg_mr_iova)                                                                   \
	X(ibv_reg_mr_iova2)                                                                  \
	X(ibv_rereg_mr)                                                                      \
	X(ibv_dereg_mr)                                                                      \
	X(cuMemHostRegister)                                                                 \
	X(cuMemHostRegister_v2)                                                              \
	X(cudaHostRegister)                                                                  \
	X(cudaHostUnregister)                                                                \
	X(hipHostRegister)                                                                   \
	X(hipHostUnregister)                                                                 \
	X(io_uring_register)                                                                 \
	X(io_uring_register_buffers)                                                         \
	X(io_uring_register_buffers_tags)                                                    \
	X(io_uring_register_buffers_update_tag)                                              \
	X(io_uring_unregister_buffers)
NAMES(WEAK)

/* Who looks whether a library is there must not find ours instead. */
static void row_probe(size_t size)
{
	(void)size;
#define ABSENT(name)                                                                         \
	CHECK(!name, "a weak reference to " #name " finds it");                              \
	CHECK(!dlsym(RTLD_DEFAULT, #name), "dlsym finds " #name);                            \
	CHECK(!dlsym(NULL, #name), "dlsym finds " #name);
	NAMES(ABSENT)
	CHECK(dlsym(RTLD_DEFAULT, "malloc") == (void *)malloc, "two mallocs");
}
#endif

static void pair(int sv[2])
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	int l = SYS(socket(AF_INET, SOCK_STREAM, 0)), one = 1, big = 64 << 20;

	SYS(bind(l, (struct sockaddr *)&at, len));
	SYS(listen(l, 1));
	SYS(getsockname(l, (struct sockaddr *)&at, &len));
	sv[0] = SYS(socket(AF_INET, SOCK_STREAM, 0));
	if (setsockopt(sv[0], SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)))
		skip("no SO_ZEROCOPY");
	if (setsockopt(sv[0], SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof(big)))
		setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
	SYS(connect(sv[0], (struct sockaddr *)&at, len));
	sv[1] = SYS(accept(l, NULL, NULL));
	close(l);
}

/* What the peer gets late is what was sent, not what the pages are used for by then. */
static void row_zerocopy(size_t size)
{
	char *p = filled(size), page[PAGE];
	size_t sent = 0, got = 0;
	int sv[2];

	pair(sv);
	expect_gone(p, PIECE, size, "before");
	while (sent < PIECE) {
		struct iovec iov = {p + sent, 256 << 10};
		struct mmsghdr m = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
		const int flags = MSG_ZEROCOPY | MSG_DONTWAIT;
		ssize_t n;

		switch (sent >> 18 & 3) {
		case 0:
			n = send(sv[0], iov.iov_base, iov.iov_len, flags);
			break;
		case 1:
			n = sendto(sv[0], iov.iov_base, iov.iov_len, flags, NULL, 0);
			break;
		case 2:
			n = sendmsg(sv[0], &m.msg_hdr, flags);
			break;
		default:
			n = sendmmsg(sv[0], &m, 1, flags);
			if (n == 1)
				n = m.msg_len;
		}
		if (n < 0 && (errno == EAGAIN || errno == ENOBUFS))
			break;
		sent += (size_t)SYS(n);
	}
	CHECK(sent > 512 << 10, "only %zu bytes were taken", sent);
	expect_here(p, sent & ~(PAGE - 1), size, "being sent");
	for (; got < (sent & ~(PAGE - 1)); got += PAGE) {
		CHECK(SYS(recv(sv[1], page, PAGE, MSG_WAITALL)) == (ssize_t)PAGE, "short");
		page_check(page, got / PAGE, 1, SEED, "received");
	}
	check_pages(p, 0, size / PAGE, 1, "after all");
}

static const struct row rows[] = {
#ifdef LINKED
	{"verbs", row_verbs, true},
	{"cuda", row_cuda, true},
	{"on-demand", row_on_demand, true},
	{"ring", row_ring, true},
	{"churn", row_churn, true},
#else
	{"module", row_module, true},
	{"probe", row_probe, false},
	{"zerocopy", row_zerocopy, true},
#endif
};

ROWS_MAIN(rows)
