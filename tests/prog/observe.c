/* SPDX-License-Identifier: Apache-2.0 */
/*
 * observe [-t SECONDS] [-o FILE] COMMAND...: runs a command whose source is not ours and
 * writes down what its processes did, those that ended included:
 *
 *   - the statistics of all that were managed, summed, with tierstat's names. Segments
 *     are kept through a hard link from the moment they appear in EMFATIER_RUN_DIR, so what
 *     is summed is how they were at the end.
 *   - maps: the most lines of /proc/PID/maps that any of them was seen with.
 *
 * After SECONDS it says where each thread is, ends all of them and returns 124; else the
 * command's own status, 128 + N after signal N.
 */
#include "prog.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "../../include/emfatier-stats.h"

static const char *run_dir;
static char keep_dir[PATH_MAX];
static unsigned kept;
static unsigned long maps_most;
static struct {
	pid_t pid, parent;
	bool ours;
} procs[65536];
static size_t nprocs;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static ssize_t slurp(const char *name, char *buf, size_t size)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	size_t n = 0;
	ssize_t got;
	while (n < size - 1 && (got = read(fd, buf + n, size - 1 - n)) > 0)
		n += (size_t)got;
	close(fd);
	buf[n] = 0;
	return (ssize_t)n;
}

/* Fills procs with what has this process above it. */
static void find_processes(void)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	bool more;

	nprocs = 0;
	while (d && (e = readdir(d)) && nprocs < sizeof(procs) / sizeof(procs[0])) {
		char name[64], text[512];
		pid_t pid = atoi(e->d_name);

		if (pid <= 0)
			continue;
		snprintf(name, sizeof(name), "/proc/%d/stat", (int)pid);
		if (slurp(name, text, sizeof(text)) <= 0)
			continue;
		const char *p = strrchr(text, ')');
		int parent;
		if (!p || sscanf(p + 1, " %*c %d", &parent) != 1)
			continue;
		procs[nprocs].pid = pid;
		procs[nprocs].parent = parent;
		procs[nprocs++].ours = parent == getpid();
	}
	if (d)
		closedir(d);
	do {
		more = false;
		for (size_t i = 0; i < nprocs; i++)
			for (size_t k = 0; !procs[i].ours && k < nprocs; k++)
				if (procs[k].ours && procs[k].pid == procs[i].parent)
					more = procs[i].ours = true;
	} while (more);
}

static void count_maps(pid_t pid)
{
	static char buf[1 << 16];
	unsigned long lines = 0;
	ssize_t n;

	snprintf(buf, sizeof(buf), "/proc/%d/maps", (int)pid);
	int fd = open(buf, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++)
			lines += buf[i] == '\n';
	close(fd);
	if (lines > maps_most)
		maps_most = lines;
}

static void say_where(pid_t pid)
{
	static const char *const files[] = { "comm", "wchan", "syscall", "stack" };
	char name[PATH_MAX], text[4096];

	snprintf(name, sizeof(name), "/proc/%d/cmdline", (int)pid);
	ssize_t n = slurp(name, text, sizeof(text));
	for (ssize_t i = 0; i + 1 < n; i++)
		if (!text[i])
			text[i] = ' ';
	fprintf(stderr, "observe: process %d: %s\n", (int)pid, n > 0 ? text : "");
	snprintf(name, sizeof(name), "/proc/%d/task", (int)pid);
	DIR *d = opendir(name);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		fprintf(stderr, "  thread %s:", e->d_name);
		for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
			snprintf(name, sizeof(name), "/proc/%d/task/%s/%s", (int)pid, e->d_name,
				 files[i]);
			n = slurp(name, text, sizeof(text));
			while (n > 0 && text[n - 1] == '\n')
				text[--n] = 0;
			fprintf(stderr, " %s", n > 0 ? text : "-");
		}
		fputc('\n', stderr);
	}
	if (d)
		closedir(d);
}

static void for_ours(void (*f)(pid_t))
{
	find_processes();
	for (size_t i = 0; i < nprocs; i++)
		if (procs[i].ours)
			f(procs[i].pid);
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
}

static void keep(const char *name)
{
	char from[PATH_MAX * 2], to[PATH_MAX * 2];

	if (!strstr(name, ".stats"))
		return;
	snprintf(from, sizeof(from), "%s/%s", run_dir, name);
	snprintf(to, sizeof(to), "%s/%u", keep_dir, kept);
	if (!link(from, to))
		kept++;
}

static void keep_new(int fd)
{
	char buf[1 << 14] __attribute__((aligned(8)));
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (char *p = buf; p < buf + n;) {
			const struct inotify_event *e = (void *)p;
			if (e->len)
				keep(e->name);
			p += sizeof(*e) + e->len;
		}
}

static const struct {
	const char *name;
	size_t at;
	bool most; /* of all rather than their sum */
} figures[] = {
#define SUM(field) { #field, offsetof(struct emf_stats, field), false }
#define MOST(field) { #field, offsetof(struct emf_stats, field), true }
	SUM(evicted_blocks),	 SUM(fetched_bytes),	   SUM(written_bytes),
	SUM(faults_demand),	 SUM(faults_standby),	   SUM(faults_zero),
	SUM(faults_write_protect), SUM(dropped_clean_bytes), SUM(dropped_zero_bytes),
	SUM(lost_bytes),	 SUM(overruns),		   MOST(peak_local_bytes),
	MOST(local_limit),	 MOST(regions),
#undef SUM
#undef MOST
};

static void report(FILE *out)
{
	uint64_t total[sizeof(figures) / sizeof(figures[0])] = { 0 };
	unsigned managed = 0, tiered = 0, refused = 0;

	for (unsigned i = 0; i < kept; i++) {
		char name[PATH_MAX * 2];
		snprintf(name, sizeof(name), "%s/%u", keep_dir, i);
		int fd = open(name, O_RDONLY | O_CLOEXEC);
		struct emf_stats *s = MAP_FAILED;
		struct stat st;
		if (fd >= 0 && !fstat(fd, &st) && st.st_size >= (off_t)sizeof(*s))
			s = mmap(NULL, sizeof(*s), PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
		unlink(name);
		if (s == MAP_FAILED)
			continue;
		if (s->magic == EMF_STATS_MAGIC) {
			managed++;
			tiered += s->evicted_blocks > 0;
			refused += s->mode == EMF_MODE_UNMANAGED;
			for (size_t k = 0; k < sizeof(figures) / sizeof(figures[0]); k++) {
				uint64_t v = *(emf_stat *)((char *)s + figures[k].at);
				if (!figures[k].most)
					total[k] += v;
				else if (v > total[k])
					total[k] = v;
			}
		}
		munmap(s, sizeof(*s));
	}
	fprintf(out, "{\n  \"maps\": %lu,\n  \"processes\": %u,\n  \"tiered\": %u,\n  \"unmanaged\": %u",
		maps_most, managed, tiered, refused);
	for (size_t k = 0; k < sizeof(figures) / sizeof(figures[0]); k++)
		fprintf(out, ",\n  \"%s\": %lu", figures[k].name, (unsigned long)total[k]);
	fputs("\n}\n", out);
}

int main(int argc, char **argv)
{
	const char *file = NULL;
	double limit = 60, begin = now(), sampled = 0;
	int opt, status = 0;

	while ((opt = getopt(argc, argv, "+t:o:")) != -1) {
		if (opt == 't')
			limit = atof(optarg);
		else if (opt == 'o')
			file = optarg;
		else
			return 125;
	}
	if (optind >= argc)
		die("usage: observe [-t SECONDS] [-o FILE] COMMAND...");
	run_dir = getenv("EMFATIER_RUN_DIR");
	if (!run_dir)
		die("EMFATIER_RUN_DIR is not set");
	mkdir(run_dir, 0755);
	snprintf(keep_dir, sizeof(keep_dir), "%s/kept.%d", run_dir, (int)getpid());
	SYS(mkdir(keep_dir, 0700));
	int watch = SYS(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
	SYS(inotify_add_watch(watch, run_dir, IN_CREATE));
	/* What is left behind is to be ended here, too. */
	SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));

	fflush(stdout);
	pid_t child = SYS(fork());
	if (!child) {
		execvp(argv[optind], argv + optind);
		die("%s: %s", argv[optind], strerror(errno));
	}
	for (;;) {
		struct pollfd p = { .fd = watch, .events = POLLIN };
		poll(&p, 1, 20);
		keep_new(watch);
		pid_t ended;
		int s;
		while ((ended = waitpid(-1, &s, WNOHANG)) > 0)
			if (ended == child) {
				status = WIFEXITED(s) ? WEXITSTATUS(s) : 128 + WTERMSIG(s);
				child = 0;
			}
		if (!child)
			break;
		if (now() - begin > limit) {
			for_ours(say_where);
			status = 124;
			break;
		}
		if (now() - sampled > 0.2) {
			for_ours(count_maps);
			sampled = now();
		}
	}
	keep_new(watch);
	/* Ended processes make room for those that they leave behind. */
	for (int i = 0; i < 50; i++) {
		for_ours(end);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		find_processes();
		size_t left = 0;
		for (size_t k = 0; k < nprocs; k++)
			left += procs[k].ours;
		if (!left)
			break;
		usleep(20000);
	}
	FILE *out = file ? fopen(file, "w") : stderr;
	if (!out)
		die("%s: %s", file, strerror(errno));
	report(out);
	rmdir(keep_dir);
	return status;
}
