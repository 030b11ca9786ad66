/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between clients and emfatierd: what comes back is what went in, and nothing else comes. */
#include <errno.h>
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

#include "provider/rdma/auth.h"
#include "provider/rdma/wire.h"

#define HEAD 8u /* magic, version, type, status */

/* One of each type, with every field set to something that is allowed. */
static struct wire_message sample(enum wire_type type)
{
	struct wire_message m = { .type = type };
	struct wire_state state = {
		.draining = true, .clients = 3, .leases = 2, .load = 1000, .size = 1ull << 40,
		.available = 1ull << 40,
	};

	switch (type) {
	case WIRE_HELLO:
	case WIRE_CHALLENGE:
		memset(m.hello.nonce, 0xa5, WIRE_NONCE);
		m.hello.prove = type == WIRE_CHALLENGE;
		break;
	case WIRE_PROVE:
		memset(m.proof.tenant, 'z', WIRE_NAME - 1);
		memset(m.proof.mac, 0x5a, WIRE_MAC);
		break;
	case WIRE_WELCOME:
		memset(m.proof.mac, 0x5a, WIRE_MAC);
		m.proof.state = state;
		break;
	case WIRE_LEASE:
		memset(m.lease.key, 7, WIRE_KEY);
		m.lease.bytes = INT64_MAX;
		m.lease.hold = true;
		break;
	case WIRE_LEASED:
		m.lease.bytes = WIRE_MAX_SLABS * WIRE_MIN_SLAB;
		m.lease.slab_bytes = WIRE_MIN_SLAB;
		m.lease.fresh = true;
		m.lease.lasts_ms = UINT32_MAX;
		break;
	case WIRE_MAP:
		m.map.first = WIRE_MAX_SLABS - 1;
		break;
	case WIRE_MAPPED:
		m.map.first = WIRE_MAX_SLABS - WIRE_SLABS;
		m.map.count = WIRE_SLABS;
		for (uint32_t i = 0; i < WIRE_SLABS; i++)
			m.map.slab[i] = (struct wire_slab){ UINT64_MAX - i, UINT32_MAX - i };
		break;
	case WIRE_STATE:
		m.state = state;
		break;
	default:
		break;
	}
	return m;
}

static void round_trip(void **unused)
{
	uint8_t bytes[WIRE_BYTES + 1], again[WIRE_BYTES];
	struct wire_message in, out;

	(void)unused;
	for (unsigned type = WIRE_HELLO; type < WIRE_TYPES; type++) {
		in = sample((enum wire_type)type);
		wire_encode(&in, bytes);
		assert_int_equal(wire_decode(bytes, WIRE_BYTES, &out), 0);
		assert_int_equal(out.type, type);
		wire_encode(&out, again);
		assert_memory_equal(bytes, again, WIRE_BYTES);
		/* not by a byte less or more */
		assert_int_equal(wire_decode(bytes, WIRE_BYTES - 1, &out), -EPROTO);
		assert_int_equal(wire_decode(bytes, WIRE_BYTES + 1, &out), -EPROTO);
		assert_int_equal(wire_decode(bytes, 0, &out), -EPROTO);
	}
	in = sample(WIRE_MAPPED);
	wire_encode(&in, bytes);
	assert_int_equal(wire_decode(bytes, WIRE_BYTES, &out), 0);
	assert_int_equal(out.map.slab[WIRE_SLABS - 1].address, UINT64_MAX - WIRE_SLABS + 1);
	assert_int_equal(out.map.slab[WIRE_SLABS - 1].rkey, UINT32_MAX - WIRE_SLABS + 1);
}

/* The bytes on the wire do not depend on this machine's order of them. */
static void layout(void **unused)
{
	static const uint8_t want[] = { 0x65, 0x6d, 0x66, 0x64, 1, 0, WIRE_LEASE, 0 };
	struct wire_message m = sample(WIRE_LEASE);
	uint8_t bytes[WIRE_BYTES];

	(void)unused;
	m.lease.bytes = 0x0102030405060708;
	wire_encode(&m, bytes);
	assert_memory_equal(bytes, want, sizeof(want));
	assert_int_equal(bytes[HEAD + WIRE_KEY], 8);
	assert_int_equal(bytes[HEAD + WIRE_KEY + 7], 1);
}

static void refused(enum wire_type type, size_t at, uint8_t value)
{
	struct wire_message m = sample(type), out = { .type = WIRE_TYPES };
	uint8_t bytes[WIRE_BYTES];

	wire_encode(&m, bytes);
	assert_int_not_equal(bytes[at], value);
	bytes[at] = value;
	assert_int_equal(wire_decode(bytes, WIRE_BYTES, &out), -EPROTO);
	assert_int_equal(out.type, WIRE_TYPES); /* not touched */
}

static void strict(void **unused)
{
	(void)unused;
	for (unsigned type = WIRE_HELLO; type < WIRE_TYPES; type++) {
		refused((enum wire_type)type, 0, 0);  /* magic */
		refused((enum wire_type)type, 4, 2);  /* version */
		refused((enum wire_type)type, 5, 1);
		refused((enum wire_type)type, 6, 0);  /* type */
		refused((enum wire_type)type, 6, WIRE_TYPES);
		refused((enum wire_type)type, 7, WIRE_STATUSES);
		refused((enum wire_type)type, WIRE_BYTES - 1, 1); /* beyond its fields */
	}
	/* requests have no status */
	refused(WIRE_HELLO, 7, WIRE_DENIED);
	refused(WIRE_CHALLENGE, 7, WIRE_DENIED);
	/* flags are 0 or 1 */
	refused(WIRE_CHALLENGE, HEAD + WIRE_NONCE, 2);
	refused(WIRE_HELLO, HEAD + WIRE_NONCE, 1);
	refused(WIRE_LEASED, HEAD + 16, 2);
	/* a name: no NUL, none at all, a byte behind its NUL, a letter it can't have */
	refused(WIRE_PROVE, HEAD + WIRE_NAME - 1, 'z');
	refused(WIRE_PROVE, HEAD, '\0');
	refused(WIRE_PROVE, HEAD + 10, '\0');
	refused(WIRE_PROVE, HEAD + 3, '"');
	/* lengths and counters */
	refused(WIRE_LEASE, HEAD + WIRE_KEY + 7, 0x80);
	refused(WIRE_LEASE, HEAD + WIRE_KEY + 8, 2);
	refused(WIRE_LEASED, HEAD + 0, 1);	/* not whole slabs */
	refused(WIRE_LEASED, HEAD + 5, 1);	/* too many */
	refused(WIRE_LEASED, HEAD + 8 + 1, 1);	/* a slab is a power of two */
	refused(WIRE_LEASED, HEAD + 8 + 2, 0x10); /* less than the least */
	refused(WIRE_LEASED, HEAD + 8 + 2, 0);
	refused(WIRE_MAP, HEAD + 1, 0x10);
	refused(WIRE_MAPPED, HEAD + 4, 0);
	refused(WIRE_MAPPED, HEAD + 4, WIRE_SLABS + 1);
	refused(WIRE_MAPPED, HEAD + 0, 0xff); /* first + count beyond all */
	refused(WIRE_MAPPED, HEAD + 4, WIRE_SLABS - 1); /* less than there are bytes */
	refused(WIRE_MAPPED, 7, WIRE_FULL);		/* failed, and yet there are some */
	refused(WIRE_LEASED, 7, WIRE_QUOTA);
	refused(WIRE_STATE, HEAD + 1 + 8 + 1, 0xff); /* load beyond 1000 */
	refused(WIRE_STATE, HEAD + 1 + 12 + 8, 1);   /* more available than there is */
	refused(WIRE_ASK, HEAD, 1);
}

static void statuses(void **unused)
{
	struct wire_message m = { .type = WIRE_LEASED }, out;
	uint8_t bytes[WIRE_BYTES];

	(void)unused;
	for (unsigned s = WIRE_OK + 1; s < WIRE_STATUSES; s++) {
		m.status = (enum wire_status)s;
		wire_encode(&m, bytes);
		assert_int_equal(wire_decode(bytes, WIRE_BYTES, &out), 0);
		assert_int_equal(out.status, s);
		assert_true(strlen(wire_status_text(out.status)) > 2);
	}
}

static void names(void **unused)
{
	(void)unused;
	assert_true(wire_is_name("a"));
	assert_true(wire_is_name("alice-2.test_X"));
	assert_true(wire_is_name("0123456789012345678901234567890"));
	assert_false(wire_is_name("01234567890123456789012345678901"));
	assert_false(wire_is_name(""));
	assert_false(wire_is_name("a b"));
	assert_false(wire_is_name("\xc3\xa4"));
}

/* --- secrets --- */

static char path[] = "/tmp/emf-secret-XXXXXX";

static int read_file(const char *content, mode_t mode, struct secret *out)
{
	char why[128] = "";
	int fd, rc;

	unlink(path);
	strcpy(path + sizeof(path) - 7, "XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, strlen(content)), strlen(content));
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
	rc = auth_read(path, out, why, sizeof(why));
	unlink(path);
	assert_int_equal(rc != 0, why[0] != '\0');
	/* never what is in it */
	assert_null(strstr(why, "0123"));
	return rc;
}

static void secret_files(void **unused)
{
	static const char good[] = "0123456789abcdef";
	struct secret s;
	char large[2000], why[128];

	(void)unused;
	assert_int_equal(read_file("0123456789abcdef\nnot this\n", 0600, &s), 0);
	assert_int_equal(s.length, 16);
	assert_memory_equal(s.bytes, good, 16);
	for (size_t i = 16; i < sizeof(s.bytes); i++)
		assert_int_equal(s.bytes[i], 0);
	assert_int_equal(read_file(good, 0400, &s), 0);
	assert_int_equal(s.length, 16);
	assert_int_equal(read_file(good, 0640, &s), -EPERM);
	assert_int_equal(read_file(good, 0604, &s), -EPERM);
	assert_int_equal(read_file("0123456789abcde\n01234567", 0600, &s), -EINVAL);
	assert_int_equal(s.length, 0);
	assert_int_equal(read_file("", 0600, &s), -EINVAL);
	memset(large, '0', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	assert_int_equal(read_file(large, 0600, &s), -EINVAL);
	for (size_t i = 0; i < sizeof(s.bytes); i++)
		assert_int_equal(s.bytes[i], 0);
	assert_int_equal(auth_read("/nonexistent", &s, why, sizeof(why)), -ENOENT);
	assert_int_equal(auth_read("/", &s, why, sizeof(why)), -EINVAL);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(auth_read(path, &s, why, sizeof(why)), -EINVAL);
	unlink(path);
}

/* What systemd hands to a service may be read by a "group": the mask of the list that lets it in. */
static void credentials(void **unused)
{
	static const char good[] = "0123456789abcdef";
	struct secret s;

	(void)unused;
	setenv("CREDENTIALS_DIRECTORY", "/tmp", 1);
	assert_int_equal(read_file(good, 0440, &s), 0);
	assert_int_equal(s.length, 16);
	assert_int_equal(read_file(good, 0460, &s), -EPERM);
	assert_int_equal(read_file(good, 0444, &s), -EPERM);
	for (unsigned i = 0; i < 4; i++) {
		setenv("CREDENTIALS_DIRECTORY", i == 0 ? "/tm" : i == 1 ? "/" : i == 2 ? "" : "/tmp/emf", 1);
		assert_int_equal(read_file(good, 0440, &s), -EPERM);
	}
	unsetenv("CREDENTIALS_DIRECTORY");
	assert_int_equal(read_file(good, 0440, &s), -EPERM);
}

static void macs(void **unused)
{
	static const struct secret one = { 16, "0123456789abcdef" }, two = { 16, "0123456789abcdeg" };
	const uint8_t a[WIRE_NONCE] = { 1 }, b[WIRE_NONCE] = { 2 };
	uint8_t mac[8][WIRE_MAC];

	(void)unused;
	assert_int_equal(auth_mac(&one, AUTH_CLIENT, a, b, "t", mac[0]), 0);
	assert_int_equal(auth_mac(&one, AUTH_CLIENT, a, b, "t", mac[1]), 0);
	assert_true(auth_same(mac[0], mac[1]));
	/* all that goes into it counts */
	assert_int_equal(auth_mac(&two, AUTH_CLIENT, a, b, "t", mac[1]), 0);
	assert_int_equal(auth_mac(&one, AUTH_SERVER, a, b, "t", mac[2]), 0);
	assert_int_equal(auth_mac(&one, AUTH_CLIENT, b, a, "t", mac[3]), 0);
	assert_int_equal(auth_mac(&one, AUTH_CLIENT, a, a, "t", mac[4]), 0);
	assert_int_equal(auth_mac(&one, AUTH_CLIENT, b, b, "t", mac[5]), 0);
	assert_int_equal(auth_mac(&one, AUTH_CLIENT, a, b, "u", mac[6]), 0);
	assert_int_equal(auth_mac(&one, AUTH_CLIENT, a, b, "", mac[7]), 0);
	for (unsigned i = 0; i < 8; i++)
		for (unsigned j = 0; j < i; j++)
			assert_false(auth_same(mac[i], mac[j]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip), cmocka_unit_test(layout),
		cmocka_unit_test(strict),     cmocka_unit_test(statuses),
		cmocka_unit_test(names),      cmocka_unit_test(secret_files),
		cmocka_unit_test(credentials), cmocka_unit_test(macs),
	};

	return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
