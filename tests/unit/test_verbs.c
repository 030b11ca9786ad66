/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emfatierd and rdma:// as they are, with a toy for a card (test_verbs_toy.h): the server's loop
 * takes its turns within the client's calls, so that all is in one thread and comes in one order.
 */
#define LANE (256u * KIB + 12u * KIB)
#include "test_provider_runs.h"

#include "test_verbs_toy.h"

#undef fail /* of cmocka */
#define fail server_fail
#include "../../tools/emfatierd/server.c"
#undef fail
#define fail() _fail(__FILE__, __LINE__)

#include "../../tools/common/address.h"
#include "provider/rdma/queue.h"

#define PORTS 4u
#define SLABS 32u
#define LEASE_MS 2000u

/* --- both sides --- */

struct cm cm;
extern const struct emf_provider emf_provider;

int cm_load(char *err, size_t errlen)
{
	(void)err, (void)errlen;
	cm = (struct cm){
		.create_event_channel = rdma_create_event_channel,
		.destroy_event_channel = rdma_destroy_event_channel,
		.create_id = rdma_create_id,
		.destroy_id = rdma_destroy_id,
		.resolve_addr = rdma_resolve_addr,
		.resolve_route = rdma_resolve_route,
		.create_qp = rdma_create_qp,
		.destroy_qp = rdma_destroy_qp,
		.connect = rdma_connect,
		.disconnect = rdma_disconnect,
		.get_cm_event = rdma_get_cm_event,
		.ack_cm_event = rdma_ack_cm_event,
		.set_option = rdma_set_option,
		.reg_mr = ibv_reg_mr,
		.dereg_mr = ibv_dereg_mr,
	};
	return 0;
}

static struct pool pool;
static struct tenant tenant[1];
static struct desk desk;
static struct options options;
static char secret_file[] = "/tmp/emf-secret-XXXXXX";

static void serve(void)
{
	(void)one_turn(true);
}

static void start_server(void)
{
	char text[32], err[128];
	const char *why;
	struct secret kept = tenant[0].secret;

	tenant[0] = (struct tenant){ .name = "default", .quota = UINT64_MAX, .secret = kept };
	desk = (struct desk){
		.leases = { .pool = &pool,
			    .tenant = tenant,
			    .ntenants = 1,
			    .most = 8,
			    .lasts = LEASE_MS * NS_PER_MS },
	};
	options = (struct options){ .lease_ms = LEASE_MS, .drain_ms = 1000 };
	for (unsigned i = 0; i < PORTS; i++) {
		snprintf(text, sizeof(text), "10.0.0.1:%u", 4000 + i);
		options.listen[i] = address_find(text, "1", AI_NUMERICHOST, &why);
		assert_non_null(options.listen[i]);
		options.listen_text[i] = "";
	}
	options.nlisten = PORTS;
	server = (typeof(server)){ .signals = -1 };
	assert_int_equal(server_open(&desk, &options, err, sizeof(err)), 0);
	toy.peer = serve;
}

static void stop_server(void)
{
	toy.peer = NULL;
	server_close();
	leases_close(&desk.leases);
	for (unsigned i = 0; i < PORTS; i++)
		freeaddrinfo(options.listen[i]);
}

static int set_up(void **state)
{
	struct pool_options opt = { .size = SLABS * WIRE_MIN_SLAB, .node = -1 };
	char why[128];
	int fd = mkstemp(secret_file);

	(void)state;
	toy_reset();
	if (fd < 0 || write(fd, "0123456789abcdef\n", 17) != 17 ||
	    auth_read(secret_file, &tenant[0].secret, why, sizeof(why)))
		return -1;
	close(fd);
	if (pool_open(&pool, &opt, why, sizeof(why)))
		return -1;
	start_server();
	return 0;
}

/* Whatever a test did: all is given back. */
static int tear_down(void **state)
{
	bool clean;

	(void)state;
	stop_server();
	clean =
	    !tenant[0].used && pool.clean + pool.dirty == SLABS && !desk.clients && !server.count;
	for (unsigned i = 0; i < TOY_KINDS; i++)
		if (toy.live[i]) {
			print_error("%d of kind %u are left\n", toy.live[i], i);
			clean = false;
		}
	pool_close(&pool);
	unlink(secret_file);
	strcpy(secret_file + sizeof(secret_file) - 7, "XXXXXX");
	return clean ? 0 : -1;
}

static int set_up_odp(void **state)
{
	int rc = set_up(state);

	toy.odp = toy.advice = true;
	return rc;
}

#define MOST 32u

/* The runtime's frames, where buffers of transfers are. */
static unsigned char *frames(void)
{
	static unsigned char *area;

	if (!area)
		area = pages(MOST * MIB);
	return area;
}

/* "&path=...": so many ways to the server. */
static struct emf_backend *open_space(unsigned paths, uint64_t size, int *status)
{
	struct emf_backend *be = NULL;
	char uri[256], err[256] = "";
	int n = snprintf(uri, sizeof(uri), "rdma://10.0.0.1:4000?secret-file=%s&size=%llu",
			 secret_file, (unsigned long long)size),
	    rc;

	for (unsigned i = 1; i < paths; i++)
		n += snprintf(uri + n, sizeof(uri) - (size_t)n, "&path=10.0.0.1:%u", 4000 + i);
	if (toy.odp)
		snprintf(uri + n, sizeof(uri) - (size_t)n, "&odp=on");
	rc = emf_provider.open(uri, 4000, &be, err, sizeof(err));
	if (status)
		*status = rc;
	else if (rc)
		fail_msg("%s (%d)", err, rc);
	if (be)
		be->ops->memory(be, frames(), MOST * MIB);
	return be;
}

static void pass_ms(unsigned ms)
{
	toy.ahead += ms * NS_PER_MS;
}

/* --- transfers that are watched --- */

static struct watched {
	struct emf_io io;
	unsigned ended;
	unsigned char *buf;
} watched[MOST];

static void watch_done(struct emf_io *io)
{
	((struct watched *)io->user)->ended++;
}

/* The i-th: MIB of its own at i * MIB. */
static void begin(struct emf_queue *q, unsigned i, enum emf_op op)
{
	struct watched *w = &watched[i];

	w->buf = frames() + i * MIB;
	if (op == EMF_WRITE)
		fill(w->buf, MIB, i + 1);
	else
		memset(w->buf, 0xee, MIB);
	w->ended = 0;
	w->io = (struct emf_io){ .op = op,
				 .offset = i * (uint64_t)MIB,
				 .length = MIB,
				 .buf = w->buf,
				 .done = watch_done,
				 .user = w };
	assert_int_equal(q->ops->submit(q, &w->io), 0);
}

static bool is_right(unsigned i)
{
	static unsigned char want[MIB];

	fill(want, MIB, i + 1);
	return !memcmp(want, watched[i].buf, MIB);
}

/*
 * Polls as often as must be enough, and never has to wait for that: a toy does things at once. How
 * many of the first n have ended.
 */
static unsigned end_all(struct emf_queue *q, unsigned n)
{
	struct pollfd fds[8];
	unsigned ended = 0;

	for (unsigned i = 0; i < 2000 && q->inflight; i++) {
		assert_int_equal(q->ops->pollfds(q, fds, 8), 1);
		assert_int_equal(poll(fds, 1, 0), 1);
		q->ops->poll(q);
	}
	for (unsigned i = 0; i < n; i++) {
		assert_true(watched[i].ended <= 1);
		ended += watched[i].ended;
	}
	return ended;
}

/* --- what providers do --- */

static void does_what_providers_do(void **state)
{
	struct emf_backend *be = open_space(1, 16 * MIB, NULL);

	(void)state;
	run_all(be, 60);
	be->ops->close(be);
	be = open_space(3, 16 * MIB, NULL);
	run_all(be, 60);
	be->ops->close(be);
}

/* Where the card takes page faults it reaches frames themselves: in bulk, if told to. */
static void frames_are_not_copied(void **state)
{
	unsigned char *elsewhere = pages(MIB), *edge = frames() + MOST * MIB;
	struct emf_backend *be = open_space(1, 16 * MIB, NULL);
	struct emf_queue *q = queue_ok(be, EMF_QUEUE_BULK, 8);

	(void)state;
	for (unsigned advice = 0; advice < 2; advice++) {
		toy.advice = !advice; /* it is not asked again */
		toy.direct = toy.advised = 0;
		for (unsigned op = 0; op < 2; op++) {
			for (unsigned i = 0; i < 8; i++)
				begin(q, i, op ? EMF_READ : EMF_WRITE);
			assert_int_equal(end_all(q, 8), 8);
		}
		for (unsigned i = 0; i < 8; i++)
			assert_true(!watched[i].io.status && is_right(i));
		assert_int_equal(toy.direct, 2 * 8 * 8); /* pieces of 128 KiB */
		assert_int_equal(toy.advised, advice ? 0 : toy.direct);
	}
	/* What lies elsewhere is copied; the two sides of the area's end, too. */
	toy.direct = 0;
	assert_int_equal(transfer(q, EMF_READ, 3 * MIB, MIB, elsewhere), 0);
	assert_memory_equal(elsewhere, watched[3].buf, MIB);
	assert_int_equal(toy.direct, 0);
	assert_int_equal(transfer(q, EMF_READ, 3 * MIB, 64 * KIB, edge - 64 * KIB), 0);
	assert_int_equal(toy.direct, 1);
	q->ops->close(q);
	/* Short ones are copied sooner than the card is told where they are. */
	toy.direct = 0;
	q = queue_ok(be, EMF_QUEUE_DEMAND, 8);
	begin(q, 2, EMF_READ);
	(void)end_all(q, 3);
	assert_int_equal(watched[2].ended, 1);
	assert_true(is_right(2));
	q->ops->close(q);
	be->ops->close(be);
	assert_int_equal(toy.direct, 0);
	munmap(elsewhere, MIB);
}

static void copies_unless_told(void **state)
{
	char uri[256], err[256];
	struct emf_backend *be;
	struct emf_queue *q;

	(void)state;
	snprintf(uri, sizeof(uri), "rdma://10.0.0.1:4000?secret-file=%s&size=16M",
		 secret_file);
	assert_int_equal(emf_provider.open(uri, 4000, &be, err, sizeof(err)), 0);
	be->ops->memory(be, frames(), MOST * MIB);
	q = queue_ok(be, EMF_QUEUE_BULK, 8);
	begin(q, 0, EMF_WRITE);
	assert_int_equal(end_all(q, 1), 1);
	begin(q, 0, EMF_READ);
	assert_int_equal(end_all(q, 1), 1);
	assert_true(is_right(0));
	assert_int_equal(toy.direct, 0);
	q->ops->close(q);
	be->ops->close(be);
}

/* As many reads at once as both cards can: with one a link is idle most of the time. */
static void reads_are_many_at_once(void **state)
{
	struct emf_backend *be = open_space(1, 16 * MIB, NULL);
	struct emf_queue *q = queue_ok(be, EMF_QUEUE_BULK, 4);

	(void)state;
	assert_int_equal(toy.reads_at_once, TOY_READS);
	q->ops->close(q);
	be->ops->close(be);
}

/* --- paths --- */

/* One of two fails in the middle of transfers, long after it was opened: the other does them. */
static void a_path_fails(void **state)
{
	(void)state;
	for (unsigned after = 1; after < 40; after += 3) {
		struct emf_backend *be = open_space(2, 16 * MIB, NULL);
		struct emf_queue *q = queue_ok(be, EMF_QUEUE_BULK, 8);

		/* until both paths are there */
		begin(q, 0, EMF_WRITE);
		assert_int_equal(end_all(q, 1), 1);
		pass_ms(60000);
		toy.link[4001 % TOY_LINKS].fail_after = after;
		for (unsigned i = 0; i < 8; i++)
			begin(q, i, EMF_WRITE);
		assert_int_equal(end_all(q, 8), 8);
		toy.link[4001 % TOY_LINKS].fail_after = after;
		for (unsigned i = 0; i < 8; i++)
			begin(q, i, EMF_READ);
		assert_int_equal(end_all(q, 8), 8);
		for (unsigned i = 0; i < 8; i++) {
			assert_int_equal(watched[i].io.status, 0);
			assert_true(is_right(i));
		}
		q->ops->close(q);
		be->ops->close(be);
	}
}

/* The only one fails when something of it has ended: the rest does not wait for a clock. */
static void the_path_fails(void **state)
{
	(void)state;
	for (unsigned after = 1; after < 20; after += 2) {
		struct emf_backend *be = open_space(1, 16 * MIB, NULL);
		struct emf_queue *q = queue_ok(be, EMF_QUEUE_BULK, 4);
		unsigned lost = 0;

		toy.link[4000 % TOY_LINKS].fail_after = after;
		for (unsigned i = 0; i < 4; i++)
			begin(q, i, EMF_WRITE);
		assert_int_equal(end_all(q, 4), 4);
		for (unsigned i = 0; i < 4; i++)
			lost += watched[i].io.status == -ENOTCONN;
		assert_int_not_equal(lost, 0);
		q->ops->close(q);
		/* a new one goes on, with what was written before */
		q = queue_ok(be, EMF_QUEUE_DEMAND, 4);
		for (unsigned i = 0; i < 4; i++)
			if (!watched[i].io.status) {
				begin(q, i, EMF_READ);
				assert_int_equal(end_all(q, 4), 4);
				assert_true(is_right(i));
			}
		q->ops->close(q);
		be->ops->close(be);
	}
}

/* From open to close; true: it got through. What ends without an error is right. */
static bool all_of_it(unsigned paths)
{
	struct emf_backend *be;
	struct emf_queue *q;
	int status;
	bool ok = true;

	be = open_space(paths, 16 * MIB, &status);
	if (status)
		return false;
	status = be->ops->queue_open(be, EMF_QUEUE_BULK, 4, &q);
	if (!status) {
		for (unsigned op = 0; op < 2 && ok; op++) {
			for (unsigned i = 0; i < 3; i++)
				begin(q, i, op ? EMF_READ : EMF_WRITE);
			assert_int_equal(end_all(q, 3), 3);
			for (unsigned i = 0; i < 3; i++) {
				ok &= !watched[i].io.status;
				assert_true(watched[i].io.status || is_right(i));
			}
		}
		q->ops->close(q);
	}
	be->ops->close(be);
	return ok && !status;
}

/* Each call of the card's, on either side, fails once: nothing hangs, is wrong, or is left. */
static void each_call_fails(void **state)
{
	int live[TOY_KINDS];
	bool failed = true;

	(void)state;
	memcpy(live, toy.live, sizeof(live));
	for (unsigned paths = 1; paths <= 2; paths++) {
		failed = true;
		for (long n = 1; failed; n++) {
			toy.calls = 0;
			toy.fail_at = n;
			(void)all_of_it(paths);
			failed = toy.calls >= n;
			toy.fail_at = 0;
			toy_run_peer();
			assert_memory_equal(live, toy.live, sizeof(live));
			assert_false(server.failed);
			/* and then it goes as ever */
			pass_ms(LEASE_MS);
			toy_run_peer();
			assert_int_equal(tenant[0].used, 0);
			assert_int_equal(desk.clients, 0);
		}
		assert_true(all_of_it(paths));
	}
	assert_int_equal(toy.refused, 0);
}

/* One of two holds back what it is given: after a while the other does that, too. */
static void a_path_hangs(void **state)
{
	struct emf_backend *be = open_space(2, 16 * MIB, NULL);
	struct emf_queue *q = queue_ok(be, EMF_QUEUE_BULK, 8);

	(void)state;
	begin(q, 0, EMF_WRITE);
	assert_int_equal(end_all(q, 1), 1);
	for (unsigned op = 0; op < 2; op++) {
		toy.link[4001 % TOY_LINKS].stalled = true;
		for (unsigned i = 0; i < 8; i++)
			begin(q, i, op ? EMF_READ : EMF_WRITE);
		for (unsigned n = 0; n < 40 && q->inflight; n++) {
			q->ops->poll(q);
			pass_ms(100);
		}
		assert_int_equal(end_all(q, 8), 8);
		for (unsigned i = 0; i < 8; i++) {
			assert_int_equal(watched[i].io.status, 0);
			assert_true(is_right(i));
		}
		toy_go_on(&toy.link[4001 % TOY_LINKS]);
		pass_ms(10000);
	}
	q->ops->close(q);
	be->ops->close(be);
}

/* --- leases --- */

static void turns_ms(unsigned ms)
{
	for (unsigned i = 0; i < 20; i++) {
		pass_ms(ms / 20 + 1);
		serve();
	}
}

static void all_links(bool down)
{
	for (unsigned i = 0; i < TOY_LINKS; i++)
		toy.link[i].down = down;
}

static unsigned read_all(struct emf_queue *q, unsigned n)
{
	unsigned right = 0;

	for (unsigned i = 0; i < n; i++)
		begin(q, i, EMF_READ);
	assert_int_equal(end_all(q, n), n);
	for (unsigned i = 0; i < n; i++)
		right += !watched[i].io.status && is_right(i);
	return right;
}

static struct emf_queue *write_all(struct emf_backend *be, unsigned n)
{
	struct emf_queue *q = queue_ok(be, EMF_QUEUE_BULK, 8);

	for (unsigned i = 0; i < n; i++)
		begin(q, i, EMF_WRITE);
	assert_int_equal(end_all(q, n), n);
	return q;
}

/* Out of reach for less than the lease lasts: all is there. For longer: nothing is. */
static void out_of_reach(void **state)
{
	struct emf_backend *be = open_space(2, 16 * MIB, NULL);
	struct emf_queue *q = write_all(be, 4);

	(void)state;
	for (unsigned longer = 0; longer < 2; longer++) {
		all_links(true);
		turns_ms(LEASE_MS / 2);
		assert_int_equal(server.count, 0); /* it has noticed */
		assert_int_equal(tenant[0].used, 16 * MIB);
		if (longer)
			turns_ms(LEASE_MS);
		assert_int_equal(desk.leases.expired, longer);
		assert_int_equal(tenant[0].used, longer ? 0 : 16 * MIB);
		all_links(false);
		assert_int_equal(read_all(q, 4), 0);
		assert_int_equal(watched[0].io.status, -ENOTCONN);
		q->ops->close(q);
		q = queue_ok(be, EMF_QUEUE_BULK, 8);
		assert_int_equal(read_all(q, 4), longer ? 0 : 4);
		assert_int_equal(watched[0].io.status, 0);
		assert_true(!longer || !watched[0].buf[0]);
	}
	assert_int_equal(desk.leases.made, 2);
	q->ops->close(q);
	be->ops->close(be);
	/* Given back, though the server has forgotten the connection that was for that. */
	assert_int_equal(tenant[0].used, 0);
	assert_int_equal(desk.leases.made, 2);
	assert_int_equal(toy.refused, 0);
}

/* The kernel ends the connections of a process that has died: its memory comes back at once. */
static void a_client_dies(void **state)
{
	struct emf_backend *be = open_space(2, 16 * MIB, NULL);
	struct emf_queue *q = write_all(be, 4);

	(void)state;
	for (struct toy_id *i = toy.ids; i; i = i->next)
		if (i->active)
			toy_part(i);
	serve();
	serve();
	assert_int_equal(server.count, 0);
	assert_int_equal(tenant[0].used, 0);
	assert_int_equal(desk.clients, 0);
	q->ops->close(q);
	be->ops->close(be);
}

/* One that gives back what it has, while others of its connections are in the middle of something.
 */
static void keys_are_revoked(void **state)
{
	struct emf_backend *be = open_space(1, 16 * MIB, NULL), *other;
	struct emf_queue *q = write_all(be, 4), *after;

	(void)state;
	toy.link[4000 % TOY_LINKS].stalled = true;
	for (unsigned i = 0; i < 4; i++)
		begin(q, i, EMF_WRITE);
	lease_end(desk.leases.first);
	serve();
	assert_int_equal(tenant[0].used, 0);
	toy.link[4000 % TOY_LINKS].stalled = false;
	other = open_space(1, SLABS * WIRE_MIN_SLAB, NULL);
	after = queue_ok(other, EMF_QUEUE_BULK, 8);
	toy_go_on(&toy.link[4000 % TOY_LINKS]);
	assert_int_equal(read_all(after, 4), 0); /* what the one before wrote so late is nowhere */
	assert_true(!watched[3].buf[0]);
	after->ops->close(after);
	other->ops->close(other);
	q->ops->close(q);
	be->ops->close(be);
}

/* Told to end: no more leases, those that there are go on, and then it is over. */
static void it_drains(void **state)
{
	struct emf_backend *be = open_space(1, 16 * MIB, NULL);
	struct emf_queue *q = write_all(be, 4);
	sigset_t term;
	int status;

	(void)state;
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	raise(SIGTERM);
	serve();
	assert_null(open_space(1, 2 * MIB, &status));
	assert_int_equal(status, -ESHUTDOWN);
	assert_int_equal(read_all(q, 4), 4);
	q->ops->close(q);
	q = queue_ok(be, EMF_QUEUE_DEMAND, 8); /* anew, of the same lease */
	assert_int_equal(read_all(q, 4), 4);
	assert_false(is_drained(now_ns()));
	q->ops->close(q);
	be->ops->close(be);
	assert_true(is_drained(now_ns()));
	sigprocmask(SIG_UNBLOCK, &term, NULL);
}

/* --- what the server may not do with us --- */

static void short_lease(uint8_t *bytes, uint32_t length)
{
	struct wire_message m;

	if (wire_decode(bytes, length, &m) || m.type != WIRE_LEASED)
		return;
	m.lease.slab_bytes = 2 * WIRE_MIN_SLAB;
	m.lease.bytes = 2 * WIRE_MIN_SLAB;
	wire_encode(&m, bytes);
}

/* One that gives less than it did: what lies behind its end is nobody's. */
static void a_lease_is_all_of_it(void **state)
{
	struct emf_backend *be = open_space(1, 3 * WIRE_MIN_SLAB, NULL);
	struct emf_queue *q;
	int status;

	(void)state;
	toy.tamper = short_lease;
	assert_int_equal(be->ops->queue_open(be, EMF_QUEUE_BULK, 4, &q), -ESTALE);
	assert_null(open_space(1, 3 * WIRE_MIN_SLAB, &status));
	assert_int_equal(status, -ESTALE);
	toy.tamper = NULL;
	q = queue_ok(be, EMF_QUEUE_BULK, 4);
	q->ops->close(q);
	be->ops->close(be);
}

static void no_iwarp(void **state)
{
	int status;

	(void)state;
	toy.device.transport_type = IBV_TRANSPORT_IWARP;
	assert_null(open_space(1, 2 * MIB, &status));
	assert_int_equal(status, -EPROTONOSUPPORT);
}

/* Mappings of no file that have the secret, and that a core file would have. */
static unsigned dumped_secrets(void)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long from = 0, to = 0, low, high, inode, was = 1;
	unsigned found = 0;
	char line[512];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &low, &high, &inode) == 3) {
			from = low;
			to = high;
			was = strchr(line, '[') ? 1 : inode;
		} else if (!strncmp(line, "VmFlags: rd wr ", 15) && !was && !strstr(line, " dd")) {
			uintptr_t own = (uintptr_t)tenant; /* the server's */

			if (own < from || own >= to)
				found += memmem((const void *)from, to - from, "0123456789abcdef",
						16) != NULL;
		}
	}
	fclose(f);
	return found;
}

static void secrets_are_not_dumped(void **state)
{
	struct emf_backend *be = open_space(1, 2 * MIB, NULL);
	struct emf_queue *q = queue_ok(be, EMF_QUEUE_BULK, 4);

	(void)state;
	assert_int_equal(dumped_secrets(), 0);
	q->ops->close(q);
	be->ops->close(be);
}

/* --- what the server does with others --- */

static unsigned came_by;

/* Just when somebody is let in, all memory comes back from somebody else. */
static void all_comes_back(uint8_t *bytes, uint32_t length)
{
	uint32_t slab[SLABS];
	struct wire_message m;

	if (wire_decode(bytes, length, &m) || m.type != WIRE_WELCOME)
		return;
	toy.tamper = NULL;
	assert_int_equal(pool_take(&pool, SLABS, slab), 0);
	for (unsigned i = 0; i < SLABS; i++) {
		memset(pool_address(&pool, slab[i]), 0xff, WIRE_MIN_SLAB);
		pool_give(&pool, slab[i], true);
	}
}

/* One more client, that gets as far as to be told no, or yes. */
static void another_comes(void)
{
	struct path_terms terms = { .tenant = "default", .key = "x", .bytes = WIRE_MIN_SLAB };
	struct sockaddr_storage peer = { 0 };
	struct path p;

	terms.secret = tenant[0].secret;
	memcpy(&peer, options.listen[1]->ai_addr, options.listen[1]->ai_addrlen);
	assert_int_equal(path_init(&p, &terms, &peer, 0, 0), 0);
	path_start(&p);
	(void)queue_wait(&p, PATH_READY, queue_now() + 1000 * NS_PER_MS);
	assert_int_equal(p.state, PATH_BROKEN);
	assert_int_equal(p.refusal, WIRE_FULL);
	path_free(&p);
	came_by++;
}

/* All that there was is given back by one, and wanted by the next: who comes meanwhile is served.
 */
static void nobody_waits_for_the_broom(void **state)
{
	struct emf_backend *be;
	struct emf_queue *q;

	(void)state;
	came_by = 0;
	toy.tamper = all_comes_back;
	toy.meanwhile = another_comes;
	be = open_space(1, SLABS * WIRE_MIN_SLAB, NULL);
	toy.meanwhile = NULL;
	assert_int_not_equal(came_by, 0);
	q = queue_ok(be, EMF_QUEUE_BULK, 4);
	begin(q, 0, EMF_READ);
	assert_int_equal(end_all(q, 1), 1);
	assert_true(!watched[0].buf[0] && !memcmp(watched[0].buf, watched[0].buf + 1, MIB - 1));
	q->ops->close(q);
	be->ops->close(be);
}

/* Many that connect and say nothing keep nobody out who knows what to say, and end some time. */
static void who_says_nothing(void **state)
{
	struct emf_backend *be;

	(void)state;
	toy.flood = 2 * MOST_PENDING;
	toy_flow();
	for (unsigned i = 0; i < 10; i++)
		serve();
	assert_int_equal(toy.flood, 0);
	assert_in_range(server.count, MOST_PENDING / 2, MOST_PENDING);
	be = open_space(1, 2 * MIB, NULL);
	be->ops->close(be);
	pass_ms(6000);
	serve();
	serve();
	assert_int_equal(server.count, 0);
}

/* However many come: other things are done in between. */
static void requests_have_their_turn(void **state)
{
	(void)state;
	toy.flood = 1000;
	toy_flow();
	serve();
	assert_in_range(toy.flood, 900, 998);
	toy.flood = 0;
}

static struct path asker;
static unsigned asked;

static void ask_again(uint8_t *bytes, uint32_t length)
{
	static const struct wire_message m = { .type = WIRE_ASK };
	static uint8_t out[WIRE_BYTES];
	struct ibv_sge sge = { .addr = (uintptr_t)out, .length = WIRE_BYTES };
	struct ibv_send_wr wr = { .sg_list = &sge,
				  .num_sge = 1,
				  .opcode = IBV_WR_SEND,
				  .send_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE },
			   *bad;
	struct ibv_sge taken = { .addr = (uintptr_t)asker.memory,
				 .length = WIRE_BYTES,
				 .lkey = asker.mr->lkey };
	struct ibv_recv_wr into = { .sg_list = &taken, .num_sge = 1 }, *bad_recv;
	struct ibv_wc wc;

	(void)bytes, (void)length;
	if (asked == 2000)
		return;
	while (ibv_poll_cq(asker.cq, 1, &wc) > 0)
		if (wc.opcode == IBV_WC_RECV)
			assert_int_equal(ibv_post_recv(asker.id->qp, &into, &bad_recv), 0);
	asked++;
	wire_encode(&m, out);
	assert_int_equal(ibv_post_send(asker.id->qp, &wr, &bad), 0);
}

/* A client asks for its state again as soon as it is told. */
static void who_asks_without_end(void **state)
{
	struct path_terms terms = { .tenant = "default", .key = "x", .bytes = WIRE_MIN_SLAB };
	struct sockaddr_storage peer = { 0 };

	(void)state;
	terms.secret = tenant[0].secret;
	memcpy(&peer, options.listen[0]->ai_addr, options.listen[0]->ai_addrlen);
	assert_int_equal(path_init(&asker, &terms, &peer, 0, 0), 0);
	path_start(&asker);
	assert_int_equal(queue_wait(&asker, PATH_READY, queue_now() + 1000 * NS_PER_MS), 0);
	toy.peer = NULL;
	toy.tamper = ask_again;
	asked = 0;
	ask_again(NULL, 0);
	serve();
	assert_in_range(asked, 2, 20);
	/* and it is not forgotten */
	for (unsigned i = 0; i < 2000; i++)
		serve();
	assert_int_equal(asked, 2000);
	assert_int_equal(desk.malformed, 0);
	toy.tamper = NULL;
	toy.peer = serve;
	path_free(&asker);
	pass_ms(LEASE_MS);
	serve();
	serve();
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define ODP(f)                                                                                     \
	{                                                                                          \
#f " (odp)", f, set_up_odp, tear_down, NULL                                        \
	}
	const struct CMUnitTest tests[] = {
		TEST(does_what_providers_do),
		TEST(reads_are_many_at_once),
		TEST(a_path_fails),
		TEST(the_path_fails),
		TEST(each_call_fails),
		TEST(a_path_hangs),
		TEST(out_of_reach),
		TEST(a_client_dies),
		TEST(keys_are_revoked),
		TEST(it_drains),
		TEST(a_lease_is_all_of_it),
		TEST(no_iwarp),
		TEST(secrets_are_not_dumped),
		TEST(nobody_waits_for_the_broom),
		TEST(who_says_nothing),
		TEST(requests_have_their_turn),
		TEST(who_asks_without_end),
		ODP(frames_are_not_copied),
		ODP(copies_unless_told),
		ODP(a_path_fails),
		ODP(the_path_fails),
		ODP(each_call_fails),
		ODP(a_path_hangs),
		ODP(out_of_reach),
		ODP(keys_are_revoked),
	};

	return cmocka_run_group_tests_name("rdma with a toy card", tests, NULL, NULL);
}
