/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: what reaches our nbdkit plugin from clients (names of exports, and requests within
 * their bounds, which nbdkit sees to), and from the operator (settings). Clients of one export see
 * what the last of them wrote, and nobody sees anything of another export, or of one that is gone.
 */
#include "../../tools/nbdkit/plugin.c"
#include "fuzz.h"

#define CLIENTS 4u
#define SLABS 8u
#define NAME 40u

static char export_name[NAME + 1];
static struct client *client[CLIENTS];

static void text(char *out, size_t size)
{
	size_t n = next() % size;

	for (size_t i = 0; i < n; i++)
		out[i] = (char)next();
	out[n] = '\0';
}

/* --- nbdkit's side --- */

void nbdkit_error(const char *format, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
}

const char *nbdkit_export_name(void)
{
	return export_name;
}

char *nbdkit_realpath(const char *path)
{
	return path[0] == '/' ? (char *)(uintptr_t) "/dev/null" : NULL;
}

/* --- steps --- */

/* Each page holds the number of its lease's first slab, which is nobody else's, or zero. */
static void check_page(const struct client *c, const uint32_t *page)
{
	for (unsigned i = 0; i < 1024; i++)
		MUST(page[i] == 0 || page[i] == c->lease->slab[0] + 1);
}

static void request(struct client *c)
{
	static uint32_t page[1024];
	uint64_t offset = (next() | (uint64_t)next() << 8) * 4096 % c->size;
	uint32_t count = sizeof(page);

	/* at an odd place, over the border of two slabs */
	if (next() % 4 == 0 && offset + 4096 < c->size)
		offset += 2048;
	switch (next() % 3) {
	case 0:
		MUST(!emf_pread(c, page, count, offset, 0));
		check_page(c, page);
		break;
	case 1:
		for (unsigned i = 0; i < 1024; i++)
			page[i] = c->lease->slab[0] + 1;
		MUST(!emf_pwrite(c, page, count, offset, 0));
		memset(page, 0xee, sizeof(page));
		MUST(!emf_pread(c, page, count, offset, 0));
		for (unsigned i = 0; i < 1024; i++)
			MUST(page[i] == c->lease->slab[0] + 1);
		break;
	default:
		MUST(!emf_zero(c, count, offset, 0));
	}
}

static void set_something(void)
{
	static const char *const keys[] = { "size", "lease", "quota", "lasts", "node", "dax", "x" };
	struct leases saved = leases;
	struct tenant saved_tenant = tenant[0];
	struct pool_options saved_options = pool_options;
	char value[NAME];

	leases.ntenants = 0;
	text(value, sizeof(value));
	(void)emf_config(keys[next() % 7], value);
	MUST(leases.ntenants <= 1);
	leases = saved;
	tenant[0] = saved_tenant;
	pool_options = saved_options;
}

static void set_up(void)
{
	char why[128];

	pool_options.size = SLABS * WIRE_MIN_SLAB;
	MUST(!pool_open(&pool, &pool_options, why, sizeof(why)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = { "", "a", "t/a", "t/b", "default/a" };

	if (!pool.base)
		set_up();
	input = data;
	left = size;
	tenant[0] = (struct tenant){ .name = "default", .quota = 4 * WIRE_MIN_SLAB };
	tenant[1] = (struct tenant){ .name = "t", .quota = UINT64_MAX };
	leases.ntenants = 2;
	leases.usual = (1 + next() % 3) * WIRE_MIN_SLAB;
	leases.lasts = 0;
	while (left) {
		unsigned step = next(), i = step % CLIENTS;

		if (step / CLIENTS % 8 == 7) {
			set_something();
		} else if (!client[i]) {
			if (step & 64)
				text(export_name, sizeof(export_name));
			else
				strcpy(export_name, names[next() % 5]);
			client[i] = emf_open(0);
			MUST(!client[i] || (client[i]->lease->connections && client[i]->size));
		} else if (step / CLIENTS % 8 == 6) {
			emf_close(client[i]);
			client[i] = NULL;
			leases_work(&leases, UINT64_MAX);
		} else {
			request(client[i]);
		}
		MUST(tenant[0].used <= tenant[0].quota);
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (client[i])
			emf_close(client[i]);
		client[i] = NULL;
	}
	leases_work(&leases, UINT64_MAX);
	MUST(!leases.count && !tenant[0].used && !tenant[1].used);
	MUST(pool.clean + pool.dirty == SLABS);
	return 0;
}
