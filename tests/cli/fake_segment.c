/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_segment DIR PID COMMAND [down|version|grow]: writes the statistics segment
 * that a managed process would have, for the tests of tierstat. grow: goes on
 * adding to the counters until it is killed.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

int main(int argc, char **argv)
{
	const char *how = argc > 4 ? argv[4] : "";
	struct emf_stats *s;
	char path[512];
	int fd;

	if (argc < 4)
		return 2;
	snprintf(path, sizeof(path), "%s/%s.stats", argv[1], argv[2]);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || ftruncate(fd, sizeof(*s)))
		return 1;
	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s == MAP_FAILED)
		return 1;
	s->version = EMF_STATS_VERSION + !strcmp(how, "version");
	s->size = sizeof(*s);
	s->pid = (uint32_t)atoi(argv[2]);
	s->start_time = start_time(argv[2]);
	s->mode = EMF_MODE_THREAD;
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
	s->magic = EMF_STATS_MAGIC;
	while (!strcmp(how, "grow")) {
		usleep(10000);
		s->faults_demand += 10;
		s->fetched_bytes += 1 << 20;
		s->stall_ns += 5000000;
	}
	return 0;
}
