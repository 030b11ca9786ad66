/* SPDX-License-Identifier: Apache-2.0 */
/* Settings: every key, every error, files, inline text, limits, noise. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "test_tree.h"

#include "config.h"
#include "config_memory.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static char tmp[64]; /* a directory for this run */
static char err[1024];
static struct emf_config cfg;

static const char *in_tmp(const char *name)
{
	static char path[4][256];
	static unsigned turn;
	char *p = path[turn++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", tmp, name);
	return p;
}

static const char *write_bytes(const char *name, const void *data, size_t len)
{
	const char *path = in_tmp(name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
	return path;
}

static const char *write_file(const char *name, const char *text)
{
	return write_bytes(name, text, strlen(text));
}

static int read_inline(const char *text)
{
	config_defaults(&cfg);
	memset(err, 0, sizeof(err));
	return config_read_inline(&cfg, text, "inline", err, sizeof(err));
}

static int read_text(const char *text)
{
	const char *path = write_file("p.conf", text);

	config_defaults(&cfg);
	memset(err, 0, sizeof(err));
	return config_read_file(&cfg, path, err, sizeof(err));
}

static void assert_contains(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' is not in: %s", part, text);
}

static void assert_defaults(void)
{
	assert_int_equal(cfg.limit.percent, 80);
	assert_int_equal(cfg.limit.bytes, 0);
	assert_int_equal(cfg.high, 98);
	assert_int_equal(cfg.low, 96);
	assert_int_equal(cfg.nstores, 0);
	assert_int_equal(cfg.stripe, 512 << 10);
	assert_int_equal(cfg.timeout_ms, 10000);
	assert_int_equal(cfg.min_region, 4 << 20);
	assert_int_equal(cfg.heap, EMF_HEAP_LARGE);
	assert_true(cfg.move);
	assert_int_equal(cfg.chaos, 0);
	assert_int_equal(cfg.redundancy, EMF_REDUNDANCY_NONE);
	assert_false(cfg.encrypt);
	assert_int_equal(cfg.rebuild, 256 << 20);
	assert_string_equal(cfg.inject, "");
	assert_int_equal(cfg.nclasses, 0);
	assert_int_equal(config_validate(&cfg, err, sizeof(err)), 0);
}

static const struct emf_class *class_of(const struct emf_config *c, uint64_t bytes,
					const char *command)
{
	struct emf_traits t = {
		.bytes = bytes, .command = command, .name = "", .who = UINT32_MAX, .order = 1
	};

	return config_class(c, &t);
}

static unsigned described;

static void describe(const char *section, const char *key, const char *type, const char *dflt,
		     const char *help)
{
	char setting[128];

	described++;
	assert_true(*section && *key && *type && *help);
	/* every default must be a value that the parser takes */
	snprintf(setting, sizeof(setting), "%s%s.%s=%s", section,
		 strcmp(section, "class") ? "" : ".x", key, dflt);
	if (config_read_inline(&cfg, setting, "default", err, sizeof(err)))
		fail_msg("%s", err);
}

/* What each spelling of redundancy means for so many stores, and where they are too few. */
static void redundancy(void **state)
{
	static const struct {
		const char *text;
		unsigned data, more, least;
	} table[] = {
		{ "none", 1, 0, 0 },	 { "mirror", 1, 1, 2 },	    { "mirror:2", 1, 1, 2 },
		{ "mirror:3", 1, 2, 3 }, { "parity:4+1", 4, 1, 5 }, { "parity:3+2", 3, 2, 5 },
		{ "parity", 2, 1, 3 },
	};
	char text[128];
	unsigned data, more;

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		for (unsigned n = 0; n <= 5; n++) {
			config_defaults(&cfg);
			snprintf(text, sizeof(text), "store.redundancy=%s%s", table[i].text,
				 n ? ";store.uri=" : "");
			for (unsigned k = 0; k < n; k++)
				strcat(text, "mem:,");
			assert_int_equal(config_read_inline(&cfg, text, "x", err, sizeof(err)), 0);
			assert_int_equal(config_validate_stores(&cfg, err, sizeof(err)),
					 n < table[i].least ? -EINVAL : 0);
			if (n < table[i].least) {
				snprintf(text, sizeof(text), "needs %u stores, store.uri names %u",
					 table[i].least, n);
				assert_non_null(strstr(err, text));
				continue;
			}
			config_columns(&cfg, &data, &more);
			assert_int_equal(data,
					 strcmp(table[i].text, "parity") ? table[i].data : n - 1);
			assert_int_equal(more, table[i].more);
		}
	}
}

static void defaults(void **state)
{
	(void)state;
	memset(&cfg, 0xa5, sizeof(cfg));
	config_defaults(&cfg);
	assert_defaults();
	described = 0;
	config_describe(describe);
	assert_int_equal(described, 28);
	assert_int_equal(cfg.nclasses, 1);
	cfg.nclasses = 0;
	assert_defaults();
}

static void good_values(void **state)
{
	(void)state;
	assert_int_equal(read_inline("local.limit=50%;local.high=90%;local.low=80"), 0);
	assert_int_equal(cfg.limit.percent, 50);
	assert_int_equal(cfg.high, 90);
	assert_int_equal(cfg.low, 80);
	assert_int_equal(read_inline(" local.limit = 1.5G ;; \t; ;local.limit=2G;"), 0);
	assert_int_equal(cfg.limit.percent, 0);
	assert_int_equal(cfg.limit.bytes, 2ull << 30);
	assert_int_equal(read_inline("local.limit=2G;local.limit=auto"), 0);
	assert_int_equal(cfg.limit.percent, 80);
	assert_int_equal(cfg.limit.bytes, 0);
	assert_int_equal(
	    read_inline("store.uri=mem:?latency=3us&bandwidth=12G, nbd://[::1]:10809/x "
			"nbd+unix:///?socket=/s;store.stripe=2M;store.timeout=500ms;"
			"store.redundancy=none;store.encrypt=off"),
	    0);
	assert_int_equal(cfg.nstores, 3);
	assert_string_equal(cfg.store_uri[0], "mem:?latency=3us&bandwidth=12G");
	assert_string_equal(cfg.store_uri[1], "nbd://[::1]:10809/x");
	assert_string_equal(cfg.store_uri[2], "nbd+unix:///?socket=/s");
	assert_int_equal(cfg.stripe, 2 << 20);
	assert_int_equal(cfg.timeout_ms, 500);
	assert_int_equal(read_inline("store.uri=mem:,mem:;store.uri=file:/x"), 0);
	assert_int_equal(cfg.nstores, 1);
	assert_int_equal(read_inline("store.uri=mem:;store.uri="), 0);
	assert_int_equal(cfg.nstores, 0);
	assert_int_equal(
	    read_inline("store.uri=mem: | nbd://a,nbd://b|file:/x;store.capacity=1G | |3G;"
			"store.high=90|80;store.low=70"),
	    0);
	assert_int_equal(cfg.nstores, 4);
	assert_memory_equal(cfg.store_tier, ((uint8_t[]){ 0, 1, 1, 2 }), 4);
	assert_string_equal(cfg.store_uri[3], "file:/x");
	assert_true(cfg.tiers[0].capacity == 1ull << 30 && !cfg.tiers[1].capacity);
	assert_true(cfg.tiers[2].capacity == 3ull << 30 && !cfg.tiers[3].capacity);
	assert_true(cfg.tiers[0].high == 90 && cfg.tiers[1].high == 80 && cfg.tiers[2].high == 80);
	assert_true(cfg.tiers[0].low == 70 && cfg.tiers[2].low == 70);
	assert_int_equal(config_validate_stores(&cfg, err, sizeof(err)), 0);
	assert_int_equal(read_inline("store.low=85"), 0);
	cfg.tiers[1].high = 80;
	assert_int_equal(config_validate_stores(&cfg, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "store.low: 85% of tier 2 is above store.high, 80%"));
	assert_int_equal(read_inline("store.uri=mem:|mem:;store.redundancy=mirror"), 0);
	assert_int_equal(config_validate_stores(&cfg, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "not with tiers"));
	assert_int_equal(read_inline("engine.min_region=4K;engine.fault=thread;engine.move=off;"
				     "engine.heap=off;engine.chaos=1000000"),
			 0);
	assert_int_equal(cfg.min_region, 4096);
	assert_false(cfg.move);
	assert_int_equal(cfg.heap, EMF_HEAP_OFF);
	assert_int_equal(cfg.chaos, 1000000);
	assert_int_equal(read_inline("engine.heap=all"), 0);
	assert_int_equal(cfg.heap, EMF_HEAP_ALL);
	assert_int_equal(read_inline(""), 0);
	assert_defaults();
}

static void bad_values(void **state)
{
	/* clang-format off */
	static const struct {
		const char *text, *message;
	} table[] = {
		{ "local.limit=0", "inline:1: local.limit: '0' leaves no local memory" },
		{ "local.limit=", "local.limit: '' is not a size; write bytes or a number with K, M" },
		{ "local.limit=-1G", "'-1G' is not a size" },
		{ "local.limit=12Q", "'12Q' is not a size" },
		{ "local.limit=99999999T", "'99999999T' is not a size" },
		{ "local.limit=0%", "not a percentage" },
		{ "local.limit=101%", "not a percentage" },
		{ "local.limit=%", "not a percentage" },
		{ "local.limit=2G;local.high=0", "inline:2: local.high: '0' is not a percentage; write 1 to 100" },
		{ "local.high=101", "not a percentage" },
		{ "local.low=x", "local.low: 'x' is not a percentage" },
		{ "local.low=99", "inline:1: local.low: 99 is above local.high, 98; lower it" },
		{ "store.uri=mem1", "store.uri: 'mem1' is not a URI; write file:/path" },
		{ "store.uri=mem:,:x", "':x' is not a URI" },
		{ "store.uri=mem: |", "a tier without a store" },
		{ "store.uri=|mem:", "a tier without a store" },
		{ "store.uri=mem: | ,| mem:", "a tier without a store" },
		{ "store.uri=mem:|x", "'x' is not a URI" },
		{ "store.capacity=1G|x", "store.capacity: 'x'" },
		{ "store.capacity=1K", "out of range" },
		{ "store.high=90||80", "store.high: ''" },
		{ "store.high=101", "store.high: '101'" },
		{ "store.low=1|2|3|4|5|6|7|8|9|10|11|12|13|14|15|16|17", "one tier too many" },
		{ "store.uri=MEM:", "not a URI" },
		{ "store.uri=mem:\x01", "'mem:?' is not a URI" },
		{ "store.uri=m:1,m:2,m:3,m:4,m:5,m:6,m:7,m:8,m:9,m:10,m:11,m:12,m:13,m:14,m:15,m:16,m:17", "'m:17' is one too many; at most 16" },
		{ "store.stripe=32K", "'32K' is out of range; use 64K to 2M" },
		{ "store.stripe=4M", "out of range" },
		{ "store.stripe=96K", "'96K' is not a power of two" },
		{ "store.stripe=x", "'x' is not a size" },
		{ "store.redundancy=raid", "'raid' is not known; use none, mirror" },
		{ "store.redundancy=mirror:4", "'mirror:4' is not possible; a mirror has 2 or 3" },
		{ "store.redundancy=parity:1+1", "of at least 2+1" },
		{ "store.redundancy=parity:15+2", "at most 16" },
		{ "store.redundancy=parity:4", "write parity:DATA+PARITY" },
		{ "store.rebuild=10K", "out of range" },
		{ "store.inject=error=2", "'error=2' is no fault" },
		{ "store.inject=x:error=1", "'x:error=1' is no fault" },
		{ "store.encrypt=yes", "'yes' is not known; use off or on" },
		{ "store.timeout=10", "'10' is not a duration; write 500ms, 10s or 2m" },
		{ "store.timeout=0s", "'0s' is out of range; use 1ms to 3600s" },
		{ "store.timeout=2000m", "out of range" },
		{ "engine.min_region=4095", "'4095' is out of range; use 4K to 64T" },
		{ "engine.fault=both", "'both' is not known; use thread or signal" },
		{ "engine.heap=small", "'small' is not known; use large, all or off" },
		{ "engine.move=on", "'on' is not known; use auto or off" },
		{ "engine.chaos=1000001", "'1000001' is not a number from 0 to 1000000" },
		{ "engine.chaos=-1", "not a number" },
		{ "engine.chaos=1.5", "not a number" },
		{ "class.a.match=order=0", "'0' is no order" },
		{ "class.a.match=order>=3 order<=2", "matches nothing" },
		{ "class.a.match=does=nothing", "'nothing' is nothing that a region does; use swept" },
		{ "class.a.match=thread=", "'thread=' is no match" },
		{ "process.a.trace=x", "process: only a policy file" },
		{ "class.a.match=size>64M", "class.a.match: 'size>64M' is no match; write size>=SIZE" },
		{ "class.a.match=size>=x", "'x' is not a size" },
		{ "class.a.match=command=", "'command=' is no match" },
		{ "class.a.match=size>=2G size<=1G", "matches nothing" },
		{ "class.a.evict=fifo", "'fifo' is not known; use auto, loop, lru or lfu" },
		{ "class.a.prefetch=yes", "'yes' is not known; use auto, sequential, trend, learned or off" },
		{ "class.a.window=1025", "not a number from 0 to 1024" },
		{ "class.a.resident=101", "not a percentage" },
		{ "class.a.granule=4M", "class.a.granule: '4M' is not known; use auto, 4K, 64K or 2M" },
		{ "class.a.place=node", "class.a.place: 'node' is not known; use auto, bind, interleave or weighted, or a percentage" },
		{ "class.a.place=0", "class.a.place: '0' is not a percentage; write 1 to 100" },
		{ "class.a.place=101%", "class.a.place: '101%' is not a percentage; write 1 to 100" },
		{ "class.a.size=4M", "class.a.size: unknown key; known are: match, evict, prefetch" },
		{ "class.a b.evict=loop", "class name" },
		{ "class..evict=loop", "class name" },
		{ "class.a.b.evict=loop", "class name" },
		{ "class.evict=loop", "write [class NAME]" },
		{ "class.a123456789012345678901234567890123.evict=loop", "class name" },
		{ "store.uir=mem:", "store.uir: unknown key; known are: uri, capacity, high, low, stripe, redundancy, "
				    "rebuild, in_place, timeout, encrypt, inject (did you mean uri?)" },
		{ "local.budget=1", "local.budget: unknown key; known are: limit, high, low" },
		{ "local.limt=1", "(did you mean limit?)" },
		{ "=1", "not a setting" },
		{ "lokal.limit=1", "[lokal]: unknown section; known are: local, store, engine, class NAME, process GLOB" },
		{ "local.x.limit=1", "unknown section" },
		{ "limit=1", "'limit=1': not a setting; write section.key=value" },
		{ "local.limit", "not a setting" },
		{ "local.limit:2G", "not a setting" },
		{ "local.limit=1G\x1b[31m", "'1G?[31m' is not a size" }, /* nothing reaches a terminal */
	};
	/* clang-format on */

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		if (read_inline(table[i].text) != -EINVAL)
			fail_msg("accepted: %s", table[i].text);
		assert_contains(err, table[i].message);
		assert_null(strchr(err, '\n'));
	}
}

static void files(void **state)
{
	char text[512];

	(void)state;
	assert_int_equal(read_text("\xef\xbb\xbf[local]\r\n# comment\n; comment\n\n"
				   "  limit = 1G ; why\r\n\t high=90\n\tlow: 85\n"
				   "[store]\nuri = mem:;x\n[ class weights ]\nevict=loop"),
			 -EINVAL); /* blanks inside the brackets are not trimmed by libinih */
	assert_contains(err, "/p.conf:10: [ class weights ]: unknown section");
	assert_int_equal(read_text("\xef\xbb\xbf[local]\r\n# comment\n; comment\n\n"
				   "  limit = 1G ; why\r\n\t high=90\n\tlow: 85\n"
				   "[store]\nuri = mem:;x\n[class  weights]\nevict=loop"),
			 0);
	assert_int_equal(cfg.limit.bytes, 1 << 30);
	assert_int_equal(cfg.high, 90);
	assert_int_equal(cfg.low, 85);
	assert_string_equal(cfg.store_uri[0], "mem:;x");
	assert_int_equal(cfg.nclasses, 1);
	assert_string_equal(cfg.classes[0].name, "weights");
	assert_int_equal(cfg.classes[0].line, 10);
	assert_int_equal(cfg.classes[0].evict, EMF_EVICT_LOOP);
	assert_int_equal(read_text(""), 0);
	assert_defaults();

	/* low and high may be given in either order; what counts is the end */
	assert_int_equal(read_text("[local]\nhigh=50\nlow=40\n"), 0);
	assert_int_equal(read_text("[local]\nlow=99\nhigh=100\n"), 0);

	snprintf(text, sizeof(text), "%s: No such file or directory", in_tmp("none"));
	assert_int_equal(config_read_file(&cfg, in_tmp("none"), err, sizeof(err)), -ENOENT);
	assert_string_equal(err, text);
	assert_int_equal(config_read_file(&cfg, tmp, err, sizeof(err)), -EINVAL);
	assert_contains(err, "not a regular file");
	assert_int_equal(mkfifo(in_tmp("fifo"), 0600), 0);
	assert_int_equal(config_read_file(&cfg, in_tmp("fifo"), err, sizeof(err)), -EINVAL);
	assert_contains(err, "not a regular file");
	assert_int_equal(config_read_file(&cfg, "/dev/zero", err, sizeof(err)), -EINVAL);
}

static void bad_files(void **state)
{
	static const struct {
		const char *text, *message;
	} table[] = {
		{ "[local]\nlimit=1G\n\nlimt=2G\n", "/p.conf:4: local.limt: unknown key" },
		{ "[local]\nlimit=1G\n  limit=12Q\n",
		  "/p.conf:3: local.limit: '12Q' is not a size" },
		{ "limit=1G\n", "/p.conf:1: a key before any section" },
		{ "[local]\nlimit\n", "/p.conf:2: neither [section] nor key = value" },
		{ "[local]\nlimit\nhigh=x\n", "/p.conf:2: neither" },
		{ "[local]\nhigh=x\nlimit\n", "/p.conf:2: local.high" },
		{ "[local\n", "/p.conf:1: neither" },
		{ "\n[lokal]\n", "/p.conf:2: [lokal]: unknown section" },
		{ "[class]\n", "/p.conf:1: [class]: write [class NAME]" },
		{ "[class a.b]\n", "class name has" },
		{ "[local x]\n", "unknown section" },
		{ "[]\n", "unknown section" },
		{ "[local]\nlow=99\nlimit=1G\n", "/p.conf:2: local.low: 99 is above" },
		{ "[local]\nhigh=90\n", "/p.conf:2: local.low: 96 is above local.high, 90" },
		{ "[class x]\nwindow=1\n[class y]\nwindow=-1\n", "/p.conf:4: class.y.window" },
		{ "[0123456789012345678901234567890123456789012345678901234567890]\n",
		  "/p.conf:1: the section's name is too long" },
		{ "[local]\n0123456789012345678901234567890123456789012345678901234567890=1\n",
		  "/p.conf:2: local.0123" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		if (read_text(table[i].text) != -EINVAL)
			fail_msg("accepted: %s", table[i].text);
		assert_contains(err, table[i].message);
		assert_null(strchr(err, '\n'));
	}
}

static void long_and_binary(void **state)
{
	static char text[1 << 20];
	size_t n;

	(void)state;
	/* sixteen URIs of full length fit into one line, one character more does not */
	n = (size_t)sprintf(text, "[store]\nuri = ");
	for (unsigned i = 0; i < EMF_MAX_STORES; i++)
		n += (size_t)sprintf(text + n, "%smem:%0*d", i ? "," : "", EMF_URI_MAX - 5, i);
	assert_int_equal(read_text(text), 0);
	assert_int_equal(cfg.nstores, EMF_MAX_STORES);
	assert_int_equal(strlen(cfg.store_uri[15]), EMF_URI_MAX - 1);
	sprintf(text, "[store]\nuri = mem:%0*d", EMF_URI_MAX - 4, 0);
	assert_int_equal(read_text(text), -EINVAL);
	assert_contains(err, "is too long; a URI has at most 231 characters");

	memset(text, 'x', sizeof(text));
	memcpy(text, "[local]\n", 8);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(read_text(text), -EINVAL);
	assert_contains(err, "p.conf:2: the line is too long");

	/* blanks and comments may be as many as one likes */
	memset(text, ' ', sizeof(text));
	memcpy(text, "[local]\n", 8);
	strcpy(text + sizeof(text) - 16, "limit=3M\n");
	assert_int_equal(read_text(text), 0);
	assert_int_equal(cfg.limit.bytes, 3 << 20);

	memset(text, 'x', 10000);
	memcpy(text, "local.limit=", 12);
	text[10000] = '\0';
	assert_int_equal(read_inline(text), -EINVAL);
	assert_contains(err, "inline:1: local.limit: the value is too long");
	memset(text, 'y', 10000);
	assert_int_equal(read_inline(text), -EINVAL);
	assert_contains(err, "not a setting");

	config_defaults(&cfg);
	assert_int_equal(config_read_file(&cfg, write_bytes("nul", "[local]\nlimit=1\0G\n", 18),
					  err, sizeof(err)),
			 -EINVAL);
	assert_contains(err, "nul:2: holds a zero byte");
	assert_int_equal(config_read_file(&cfg, "/proc/self/exe", err, sizeof(err)), -EINVAL);
	/* a buffer for the message that is too small is the caller's loss, no more */
	assert_int_equal(config_read_inline(&cfg, "local.limit=0", "s", err, 8), -EINVAL);
	assert_int_equal(strlen(err), 7);
}

static void classes(void **state)
{
	char text[4096];
	size_t n = 0;

	(void)state;
	assert_int_equal(read_text("[class big]\nmatch = size>=64M, command=llama*\n"
				   "evict = loop\nprefetch = sequential\nwindow = 16\n"
				   "resident = 25%\ngranule = 2M\n"
				   "[class mid]\nmatch=size>=8M size<=16M\n"
				   "[class rest]\nprefetch=off\n"),
			 0);
	assert_int_equal(cfg.nclasses, 3);
	assert_int_equal(cfg.classes[0].window, 16);
	assert_int_equal(cfg.classes[0].resident, 25);
	assert_int_equal(cfg.classes[0].prefetch, EMF_PREFETCH_SEQUENTIAL);
	assert_ptr_equal(class_of(&cfg, 64 << 20, "llama-server"), &cfg.classes[0]);
	assert_ptr_equal(class_of(&cfg, 64 << 20, "node"), &cfg.classes[2]);
	assert_ptr_equal(class_of(&cfg, (64 << 20) - 1, "llama"), &cfg.classes[2]);
	assert_ptr_equal(class_of(&cfg, 8 << 20, "x"), &cfg.classes[1]);
	assert_ptr_equal(class_of(&cfg, 16 << 20, "x"), &cfg.classes[1]);
	assert_ptr_equal(class_of(&cfg, (16 << 20) + 1, "x"), &cfg.classes[2]);

	/* inline text changes a class of the file, and adds others behind it */
	assert_int_equal(config_read_inline(&cfg,
					    "class.mid.match=command=a?c*e;class.new.window=3",
					    "inline", err, sizeof(err)),
			 0);
	assert_int_equal(cfg.nclasses, 4);
	assert_ptr_equal(class_of(&cfg, 1, "abcde"), &cfg.classes[1]);
	assert_ptr_equal(class_of(&cfg, 1, "abce"), &cfg.classes[1]);
	assert_ptr_equal(class_of(&cfg, 1, "abcd"), &cfg.classes[2]);
	assert_int_equal(cfg.classes[1].match_min, 0);
	assert_int_equal(cfg.classes[1].match_max, UINT64_MAX);

	assert_int_equal(read_inline("class.a.window=1;class.b.place=bind;class.c.place=interleave;"
				     "class.d.place=weighted;class.e.place=7%;class.f.place=auto"),
			 0);
	static const unsigned place[] = { 0, 100, 50, EMF_PLACE_WEIGHTED, 7, 0 };
	for (unsigned i = 0; i < COUNT(place); i++)
		assert_int_equal(cfg.classes[i].place, place[i]);

	assert_int_equal(read_inline(""), 0);
	assert_null(class_of(&cfg, 1, "x"));

	for (unsigned i = 0; i <= EMF_MAX_CLASSES; i++)
		n += (size_t)sprintf(text + n, "class.c%u.window=1;", i);
	assert_int_equal(read_inline(text), -EINVAL);
	assert_contains(err, "inline:33: class.c32.window: too many classes; at most 32");
}

static void globs(void **state)
{
	static const struct {
		const char *glob, *name;
		bool matches;
	} table[] = {
		{ "*", "", true },
		{ "*", "x", true },
		{ "a", "a", true },
		{ "a", "b", false },
		{ "a", "", false },
		{ "a*", "a", true },
		{ "*a", "bca", true },
		{ "*a", "ab", false },
		{ "*a*b*", "xxaxxbxx", true },
		{ "*a*b*", "xxbxxa", false },
		{ "a*b*c", "abbbcbc", true },
		{ "?", "", false },
		{ "??", "ab", true },
		{ "[a]", "a", false },
		{ "**", "ab", true },
		{ "*aab", "aaaab", true },
		{ "a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", false },
	};
	char text[128];

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		snprintf(text, sizeof(text), "class.x.match=command=%s", table[i].glob);
		assert_int_equal(read_inline(text), 0);
		if (!class_of(&cfg, 1, table[i].name) == table[i].matches)
			fail_msg("%s and '%s'", table[i].glob, table[i].name);
	}
}

static void policies(void **state)
{
	char path[PATH_MAX];

	(void)state;
	setenv("EMFATIER_POLICY_DIR", tmp, 1);
	write_file("mine.conf", "[local]\nlimit=7M\n");
	config_defaults(&cfg);
	assert_int_equal(config_read_policy(&cfg, "mine", err, sizeof(err)), 0);
	assert_int_equal(cfg.limit.bytes, 7 << 20);
	assert_int_equal(config_read_policy(&cfg, in_tmp("mine.conf"), err, sizeof(err)), 0);
	assert_int_equal(config_read_policy(&cfg, "no-such", err, sizeof(err)), -ENOENT);
	assert_contains(err, "no-such: no such policy in ");
	assert_contains(err, tmp);
	assert_int_equal(config_read_policy(&cfg, "no-such.conf", err, sizeof(err)), -ENOENT);
	assert_int_equal(config_find_policy("mine", path, err, sizeof(err)), 0);
	assert_string_equal(path, in_tmp("mine.conf"));

	/* built-in < policy file < EMFATIER_CONF */
	setenv("EMFATIER_POLICY", "mine", 1);
	setenv("EMFATIER_CONF", "engine.chaos=5", 1);
	config_defaults(&cfg);
	assert_int_equal(config_read_env(&cfg, err, sizeof(err)), 0);
	assert_int_equal(cfg.limit.bytes, 7 << 20);
	assert_int_equal(cfg.chaos, 5);
	setenv("EMFATIER_CONF", "local.limit=8M;local.limit=x", 1);
	assert_int_equal(config_read_env(&cfg, err, sizeof(err)), -EINVAL);
	assert_contains(err, "EMFATIER_CONF:2: local.limit: 'x'");
	setenv("EMFATIER_POLICY", "no-such", 1);
	assert_int_equal(config_read_env(&cfg, err, sizeof(err)), -ENOENT);
	unsetenv("EMFATIER_POLICY");
	unsetenv("EMFATIER_CONF");
	config_defaults(&cfg);
	assert_int_equal(config_read_env(&cfg, err, sizeof(err)), 0);
	assert_defaults();
	unsetenv("EMFATIER_POLICY_DIR");
}

/* Run from the source tree, the policies that ship are read as well. */
static void shipped_policies(void **state)
{
	(void)state;
	if (access("policies/default.conf", R_OK))
		skip();
	memset(&cfg, 0, sizeof(cfg));
	config_defaults(&cfg);
	/* of nothing: what the file leaves out would stay 0 */
	cfg.high = cfg.low = cfg.timeout_ms = 0;
	cfg.stripe = cfg.min_region = 0;
	cfg.limit.percent = 0;
	if (config_read_file(&cfg, "policies/default.conf", err, sizeof(err)))
		fail_msg("%s", err);
	assert_defaults();
	static const char *const others[] = { "llm-decode", "llm-moe",	    "llm-prefill",
					      "kv-heavy",   "in-memory-db", "batch-scan" };
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		char path[64];
		snprintf(path, sizeof(path), "policies/%s.conf", others[i]);
		config_defaults(&cfg);
		if (config_read_file(&cfg, path, err, sizeof(err)))
			fail_msg("%s", err);
		assert_non_null(class_of(&cfg, 1ull << 30, "node"));
	}
	config_defaults(&cfg);
	assert_int_equal(config_read_file(&cfg, "policies/llm-decode.conf", err, sizeof(err)), 0);
	assert_null(class_of(&cfg, 1 << 20, "node"));
	/* What is written each time is no weight, whatever its size. */
	config_defaults(&cfg);
	assert_int_equal(config_read_file(&cfg, "policies/llm-prefill.conf", err, sizeof(err)), 0);
	struct emf_traits t = { .bytes = 1 << 30,
				.command = "x",
				.name = "",
				.who = UINT32_MAX,
				.order = 1,
				.does = EMF_DOES_SCRATCH };
	assert_int_equal(config_class(&cfg, &t)->evict, EMF_EVICT_LRU);
}

static void traits(void **state)
{
	struct emf_traits t = { .bytes = 1 << 20, .command = "x", .name = "", .order = 3 };

	(void)state;
	assert_int_equal(
	    read_inline("class.a.match=thread=gpu-* library=libtorch*;"
			"class.b.match=order>=2,order<=3;"
			"class.c.match=does=swept does=constant;class.d.match=name=kv*"),
	    0);
	assert_int_equal(cfg.asks, EMF_ASKS_THREAD | EMF_ASKS_LIBRARY);
	assert_int_equal(config_who(&cfg, "gpu-1", "libtorch_cpu.so"), 15);
	assert_int_equal(config_who(&cfg, "gpu-1", "libc.so.6"), 14);
	t.who = config_who(&cfg, "gpu-1", "libtorch_cpu.so");
	assert_ptr_equal(config_class(&cfg, &t), &cfg.classes[0]);
	t.who = config_who(&cfg, "main", "libtorch_cpu.so");
	assert_ptr_equal(config_class(&cfg, &t), &cfg.classes[1]);
	t.order = 4;
	assert_null(config_class(&cfg, &t));
	t.does = EMF_DOES_SWEPT;
	assert_null(config_class(&cfg, &t));
	t.does |= EMF_DOES_CONSTANT;
	assert_ptr_equal(config_class(&cfg, &t), &cfg.classes[2]);
	t.does = 0;
	t.name = "kv-cache";
	assert_ptr_equal(config_class(&cfg, &t), &cfg.classes[3]);
	/* A glob without a slash is for the name alone; what is no mapping has none. */
	assert_int_equal(read_inline("class.e.match=file:*.gguf;class.f.match=file:/m/*"), 0);
	t.name = "";
	assert_null(config_class(&cfg, &t));
	t.file = "/models/a.gguf";
	t.who = UINT32_MAX;
	t.order = 9;
	assert_ptr_equal(config_class(&cfg, &t), &cfg.classes[0]);
	t.file = "/m/b/a.data";
	assert_ptr_equal(config_class(&cfg, &t), &cfg.classes[1]);
	assert_true(config_file_named(&cfg, "/x/y.gguf"));
	assert_false(config_file_named(&cfg, "/x/y.gguf/z"));
	t.file = NULL;
	assert_int_equal(cfg.files, EMF_FILES_WEIGHTS);
	assert_int_equal(read_inline("engine.files=off"), 0);
	assert_int_equal(cfg.files, EMF_FILES_OFF);
	assert_int_equal(read_inline("class.a.match=order=2"), 0);
	t.order = 2;
	t.who = 1;
	assert_ptr_equal(config_class(&cfg, &t), &cfg.classes[0]);
	t.order = 1;
	assert_null(config_class(&cfg, &t));
	assert_int_equal(cfg.asks, 0);
}

static void processes(void **state)
{
	static const char text[] = "[local]\nlimit = 1G\n[process redis*]\nlocal.limit = 2G\n"
				   "class.all.evict = lfu\n[process *]\nstore.timeout = 3s\n";

	(void)state;
	config_defaults(&cfg);
	assert_int_equal(read_text(text), 0);
	assert_int_equal(cfg.limit.bytes, 1ull << 30); /* nobody's: only checked */
	assert_int_equal(cfg.nclasses, 0);
	config_defaults(&cfg);
	strcpy(cfg.command, "redis-server");
	assert_int_equal(config_read_file(&cfg, in_tmp("p.conf"), err, sizeof(err)), 0);
	assert_int_equal(cfg.limit.bytes, 2ull << 30);
	assert_int_equal(cfg.nclasses, 1);
	assert_int_equal(cfg.timeout_ms, 3000);
	config_defaults(&cfg);
	strcpy(cfg.command, "node");
	assert_int_equal(config_read_file(&cfg, in_tmp("p.conf"), err, sizeof(err)), 0);
	assert_int_equal(cfg.limit.bytes, 1ull << 30);
	assert_int_equal(cfg.timeout_ms, 3000);
	assert_int_equal(read_text("[process x]\nlocal.limt = 1G\n"), -EINVAL);
	assert_contains(err, ":2: local.limt: unknown key");
	assert_int_equal(read_text("[process]\nlocal.limit = 1G\n"), -EINVAL);
}

static void memory_limits(void **state)
{
	const char *root = in_tmp("root");
	char keep[256];
	struct memory_limit m;

	(void)state;
	snprintf(keep, sizeof(keep), "%s", root);
	root = keep;
	mkdir(root, 0700);
	tree_put(root, "/proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n");
	memory_limit_read(root, &m);
	assert_int_equal(m.host, 16ull << 30);
	assert_int_equal(m.cgroup, UINT64_MAX);

	/* version 2: the tightest of the path */
	tree_put(root, "/proc/self/cgroup", "0::/a.slice/b.scope\n");
	tree_put(root, "/sys/fs/cgroup/a.slice/b.scope/memory.max", "max\n");
	memory_limit_read(root, &m);
	assert_int_equal(m.cgroup, UINT64_MAX);
	tree_put(root, "/sys/fs/cgroup/a.slice/memory.max", "4294967296\n");
	memory_limit_read(root, &m);
	assert_int_equal(m.cgroup, 4ull << 30);
	tree_put(root, "/sys/fs/cgroup/a.slice/b.scope/memory.max", "1073741824\n");
	memory_limit_read(root, &m);
	assert_int_equal(m.cgroup, 1ull << 30);

	/* version 1, beside an unused version 2; the path exists only outside the container */
	tree_put(root, "/proc/self/cgroup",
		 "9:name=systemd:/x\n4:cpu,memory:/docker/1234\n3:memoryx:/\n0::/\n");
	tree_put(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	memory_limit_read(root, &m);
	assert_int_equal(m.cgroup, UINT64_MAX);
	tree_put(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
	memory_limit_read(root, &m);
	assert_int_equal(m.cgroup, 512ull << 20);

	/* nonsense is no limit */
	tree_put(root, "/proc/self/cgroup", "\n:::\n0::\nmemory\n4:memory:/../..//\n:");
	tree_put(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "-1\n");
	tree_put(root, "/proc/meminfo", "MemTotal: lots\n");
	memory_limit_read(root, &m);
	assert_int_equal(m.cgroup, UINT64_MAX);
	assert_true(m.host > 1 << 20); /* sysinfo's */

	/* of this machine, whatever it has */
	assert_int_equal(read_inline("local.limit=3M"), 0);
	assert_int_equal(config_limit_bytes(&cfg), 3 << 20);
	assert_int_equal(read_inline("local.limit=100%"), 0);
	memory_limit_read("", &m);
	assert_int_equal(config_limit_bytes(&cfg), m.cgroup < m.host ? m.cgroup : m.host);
}

static uint64_t random_state;

static unsigned random_below(unsigned n)
{
	/* xorshift64*, Vigna 2014 */
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (unsigned)((random_state * 2685821657736338717ull) >> 33) % n;
}

/* Pieces of real settings between random bytes: noise alone never gets far. */
static size_t noise(char *out, size_t room)
{
	static const char *const pieces[] = {
		"[local]\n",
		"[store]\n",
		"[engine]\n",
		"[class x]\n",
		"[class ",
		"]",
		"limit",
		"high",
		"low",
		"uri",
		"stripe",
		"timeout",
		"match",
		"window",
		"=",
		"=",
		"=",
		"\n",
		"\n",
		";",
		".",
		"local.",
		"store.",
		"class.a.",
		"class.",
		"size>=",
		"size<=",
		"command=",
		"64M",
		"1.5G",
		"97",
		"%",
		"mem:",
		",",
		"nbd://h",
		"auto",
		"99999999999999999999",
		"resident",
		"granule=2M",
		"\r\n",
		"\xef\xbb\xbf",
		"local.limit=2G;",
		"local.low=1;",
		"store.uri=mem:,mem:;",
		"class.b.evict=loop;",
		"engine.chaos=9;",
		"\t",
		" ",
	};
	size_t n = 0;

	for (unsigned left = random_below(40); left; left--) {
		if (random_below(4)) {
			const char *p = pieces[random_below(COUNT(pieces))];

			if (n + strlen(p) >= room)
				break;
			memcpy(out + n, p, strlen(p));
			n += strlen(p);
		} else {
			for (unsigned i = random_below(8); i && n < room - 1; i--)
				out[n++] = (char)random_below(256);
		}
	}
	out[n] = '\0';
	return n;
}

static void assert_sane(int rc)
{
	assert_true(cfg.nstores <= EMF_MAX_STORES && cfg.nclasses <= EMF_MAX_CLASSES);
	for (unsigned i = 0; i < cfg.nstores; i++)
		assert_true(strnlen(cfg.store_uri[i], EMF_URI_MAX) - 1 < EMF_URI_MAX - 1);
	for (unsigned i = 0; i < cfg.nclasses; i++)
		assert_true(strnlen(cfg.classes[i].name, 32) - 1 < 31);
	assert_true(cfg.high >= 1 && cfg.high <= 100 && cfg.low >= 1 && cfg.low <= 100);
	assert_true(cfg.limit.percent ? !cfg.limit.bytes : cfg.limit.bytes > 0);
	if (!rc) {
		assert_true(cfg.low <= cfg.high);
		return;
	}
	assert_true(err[0]);
	for (const char *p = err; *p; p++)
		assert_true(*p >= ' ' && *p <= '~');
}

static void fuzz(void **state)
{
	const char *given = getenv("EMF_TEST_SEED");
	uint64_t seed = (uint64_t)time(NULL) << 20 | (uint64_t)getpid();
	static char text[4096];
	unsigned accepted = 0;

	(void)state;
	if (given)
		seed = strtoull(given, NULL, 0);
	print_message("# EMF_TEST_SEED=%llu\n", (unsigned long long)seed);
	random_state = seed | 1;
	for (unsigned i = 0; i < 100000; i++) {
		size_t n = noise(text, sizeof(text));
		int rc = read_inline(text);

		assert_sane(rc);
		accepted += !rc && n > 8;
		if (i % 20)
			continue;
		write_bytes("noise", text, n);
		config_defaults(&cfg);
		rc = config_read_file(&cfg, in_tmp("noise"), err, sizeof(err));
		assert_sane(rc);
		accepted += !rc && n > 8;
	}
	/* else the noise never got past the first check */
	assert_true(accepted > 20);
}

static int set_up(void **state)
{
	(void)state;
	unsetenv("EMFATIER_POLICY_DIR");
	unsetenv("EMFATIER_POLICY");
	unsetenv("EMFATIER_CONF");
	strcpy(tmp, "/tmp/emf-test-config-XXXXXX");
	return mkdtemp(tmp) ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -r %s", tmp);
	return system(command);
}

int main(void)
{
	/* clang-format off */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(redundancy),
		cmocka_unit_test(good_values),
		cmocka_unit_test(bad_values),
		cmocka_unit_test(files),
		cmocka_unit_test(bad_files),
		cmocka_unit_test(long_and_binary),
		cmocka_unit_test(classes),
		cmocka_unit_test(globs),
		cmocka_unit_test(policies),
		cmocka_unit_test(shipped_policies),
		cmocka_unit_test(traits),
		cmocka_unit_test(processes),
		cmocka_unit_test(memory_limits),
		cmocka_unit_test(fuzz),
	};
	/* clang-format on */

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
