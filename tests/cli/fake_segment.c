/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_segment DIR PID COMMAND [down|degraded|rebuilding|version|idle|grow|serve|placed]: writes the statistics segment
 * that a managed process would have, for the tests of tierstat. grow: goes on
 * adding to the counters until it is killed, and gives the map to who asks; serve: the map only; placed: that, and some of it is in place on a slow node.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "emfatier-stats.h"

static uint64_t start_time(const char *pid)
{
	char path[64], text[1024];
	unsigned long long start = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/stat", pid);
	f = fopen(path, "r");
	if (f && fgets(text, sizeof(text), f))
		sscanf(strrchr(text, ')') + 2,
		       "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
		       "%*d %llu",
		       &start);
	if (f)
		fclose(f);
	return start;
}

#define MAP_OFFSET ((sizeof(struct emf_stats) + 4095) & ~(size_t)4095)

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void add_region(struct emf_map *m, uint64_t start, unsigned blocks, const char *class)
{
	struct emf_map_region *r = &m->region[m->nregions++];

	r->start = start;
	r->length = (uint64_t)blocks << 21;
	r->first_cell = m->ncells;
	r->cells = blocks;
	r->registered = 1;
	strcpy(r->class, class);
	for (unsigned i = 0; i < blocks; i++) {
		unsigned state = i < blocks / 4	  ? EMF_CELL_LOCAL
				 : i < blocks / 2 ? EMF_CELL_STANDBY
				 : i < blocks - 1 ? EMF_CELL_FAR
						  : EMF_CELL_EMPTY;

		m->cell[m->ncells++] = (uint8_t)(state | (i % 16) << 4);
		r->local_bytes += state == EMF_CELL_LOCAL ? 2u << 20 : 0;
		r->standby_bytes += state == EMF_CELL_STANDBY ? 2u << 20 : 0;
		r->far_bytes += state == EMF_CELL_FAR ? 2u << 20 : 0;
	}
}

static void fill_map(struct emf_map *m)
{
	m->block_bytes = 2u << 20;
	m->blocks_per_cell = 1;
	add_region(m, 0x7f0000000000, 256, "weights");
	add_region(m, 0x7f1000000000, 4, "");
	m->regions_total = m->nregions + 5;
	m->kept_bytes = 4u << 20;
	m->region[1].kept = 1;
}

/* Half of what is far is used where it lies. */
static void place_some(struct emf_stats *s, struct emf_map *m)
{
	struct emf_map_region *r = m->region;

	for (unsigned i = r->cells / 2; i < r->cells * 3 / 4; i++) {
		m->cell[i] = (uint8_t)((m->cell[i] & 0xf0) | EMF_CELL_PLACED);
		r->far_bytes -= 2u << 20;
		r->placed_bytes += 2u << 20;
	}
	s->placed_bytes = r->placed_bytes;
	s->placed_blocks = 70;
	s->promoted_blocks = 6;
}

/* Three minutes of a sweep. */
static void fill_history(struct emf_stats *s)
{
	for (unsigned i = 0; i < 180; i++) {
		struct emf_sample *to = &s->history[i];

		to->time_ns = now_ns() - (180 - i) * 1000000000ull;
		to->local_limit = s->local_limit;
		to->local_bytes = s->local_bytes;
		to->far_bytes = s->far_bytes;
		to->fetched_bytes = (uint64_t)i << 28;
		to->stall_ns = i * 250000000ull;
		to->faults_demand = i * 100;
	}
	s->history_count = 180;
}

int main(int argc, char **argv)
{
	const char *how = argc > 4 ? argv[4] : "";
	bool served = !strcmp(how, "serve") || !strcmp(how, "placed");
	struct emf_stats *s;
	struct emf_map *m;
	char path[512];
	int fd;

	if (argc < 4)
		return 2;
	snprintf(path, sizeof(path), "%s/%s.stats", argv[1], argv[2]);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || ftruncate(fd, MAP_OFFSET + sizeof(*m)))
		return 1;
	s = mmap(NULL, MAP_OFFSET + sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s == MAP_FAILED)
		return 1;
	s->version = EMF_STATS_VERSION + !strcmp(how, "version");
	s->size = sizeof(*s);
	s->pid = (uint32_t)atoi(argv[2]);
	s->start_time = start_time(argv[2]);
	s->mode = strcmp(how, "idle") ? EMF_MODE_THREAD : EMF_MODE_IDLE;
	s->move = 1;
	snprintf(s->command, sizeof(s->command), "%s", argv[3]);
	s->local_limit = 512ull << 20;
	s->local_bytes = 500ull << 20;
	s->peak_local_bytes = 511ull << 20;
	s->far_bytes = 600ull << 20;
	s->managed_bytes = 1100ull << 20;
	s->regions = 9;
	s->faults_demand = 1234567;
	s->faults_standby = 2;
	s->faults_write_protect = 3;
	s->faults_zero = 4;
	s->fetched_bytes = 3ull << 30;
	s->written_bytes = 700ull << 20;
	s->stall_ns = 12345678901ull;
	for (unsigned i = 1; i <= 100; i++)
		s->fault_latency.bucket[emf_hist_bucket(i * 1000)]++;
	s->fault_latency.max = 100000;
	s->nstores = 2;
	strcpy(s->store[0].uri, "mem:");
	strcpy(s->store[1].uri, "nbd://host/\"quoted\"");
	s->store[1].used_bytes = 300ull << 20;
	if (!strcmp(how, "down"))
		s->store[1].state = EMF_STORE_DOWN;
	if (!strcmp(how, "degraded"))
		s->store[1].state = EMF_STORE_DEGRADED;
	if (!strcmp(how, "rebuilding"))
		s->store[1].state = EMF_STORE_REBUILDING;
	if (!strcmp(how, "rebuilding") || !strcmp(how, "degraded"))
		s->store[1].rebuild_bytes = 40ull << 20;
	for (unsigned i = 1; i <= 100; i++)
		s->store[1].read_latency.bucket[emf_hist_bucket(i * 20000)] += 10;
	s->store[1].read_latency.max = 2000000;
	s->store[1].read_bytes = 3ull << 30;
	s->map_offset = MAP_OFFSET;
	m = (struct emf_map *)((char *)s + MAP_OFFSET);
	fill_map(m);
	if (!strcmp(how, "placed"))
		place_some(s, m);
	fill_history(s);
	s->magic = EMF_STATS_MAGIC;
	for (uint64_t last = now_ns(), ms; !strcmp(how, "grow") || served; last += ms * 1000000) {
		usleep(10000);
		ms = (now_ns() - last) / 1000000;
		if (s->map_wanted > m->written_at) {
			m->sequence++;
			m->written_at = now_ns();
			m->sequence++;
		}
		if (served)
			continue;
		s->faults_demand += ms; /* 1000/s, 100 MiB/s, 50% */
		s->fetched_bytes += (ms << 20) / 10;
		s->stall_ns += ms * 500000;
	}
	return 0;
}
