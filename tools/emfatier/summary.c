/* SPDX-License-Identifier: Apache-2.0 */
#include "summary.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../tierstat/show.h"
#include "../tierstat/text.h"
#include "../common/say.h"

#define SEGMENTS 64
#define SHOWN 4
#define ANCESTORS 32

/* The statistics of a process, kept open: they outlive it there. */
struct segment {
	pid_t pid;
	int fd;
};

struct watch {
	struct segment segment[SEGMENTS];
	unsigned n, more;
	pid_t child;
	const char *run_dir;
};

static const int passed_on[] = { SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 };

static pid_t parent_of(pid_t pid)
{
	char path[64], text[512] = "";
	int parent = 0;
	const char *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fgets(text, sizeof(text), f) && (p = strrchr(text, ')')))
		sscanf(p + 1, " %*c %d", &parent);
	fclose(f);
	return parent;
}

static bool descends(pid_t pid, pid_t from)
{
	for (int i = 0; i < ANCESTORS && pid > 1; i++) {
		if (pid == from)
			return true;
		pid = parent_of(pid);
	}
	return false;
}

/* A file has appeared in the run directory. */
static void appeared(struct watch *w, const char *name)
{
	char path[PATH_MAX], *end;
	long pid = strtol(name, &end, 10);
	int fd;

	if (pid <= 0 || pid > INT_MAX || strcmp(end, ".stats") || !descends((pid_t)pid, w->child))
		return;
	if (w->n == SEGMENTS) {
		w->more++;
		return;
	}
	snprintf(path, sizeof(path), "%s/%s", w->run_dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd >= 0)
		w->segment[w->n++] = (struct segment){ (pid_t)pid, fd };
}

static void read_events(struct watch *w, int fd)
{
	_Alignas(struct inotify_event) char buf[4096];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (char *p = buf; p < buf + n;) {
			const struct inotify_event *e = (const struct inotify_event *)p;

			if (e->len)
				appeared(w, e->name);
			p += sizeof(*e) + e->len;
		}
	}
}

static void pass_signal_on(const struct signalfd_siginfo *info, pid_t child)
{
	/* what the terminal sends goes to all of the group by itself */
	if (info->ssi_signo != SIGCHLD && info->ssi_code != SI_KERNEL)
		kill(child, (int)info->ssi_signo);
}

/* The wait status of the child. */
static int wait_for(struct watch *w, int events, int signals)
{
	struct pollfd fds[] = { { .fd = signals, .events = POLLIN },
				{ .fd = events, .events = POLLIN } };
	struct signalfd_siginfo info;
	int status;

	for (;;) {
		poll(fds, 2, -1);
		if (events >= 0)
			read_events(w, events);
		while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
			pass_signal_on(&info, w->child);
		if (waitpid(w->child, &status, WNOHANG) == w->child)
			return status;
	}
}

static bool read_segment(const struct segment *seg, struct emf_stats *s)
{
	if (pread(seg->fd, s, sizeof(*s), 0) != (ssize_t)sizeof(*s) ||
	    s->magic != EMF_STATS_MAGIC || s->version != EMF_STATS_VERSION ||
	    s->nstores > EMF_STATS_STORES)
		return false;
	s->command[sizeof(s->command) - 1] = '\0';
	for (unsigned i = 0; i < s->nstores; i++)
		s->store[i].uri[sizeof(s->store[i].uri) - 1] = '\0';
	return s->managed_bytes || s->evicted_blocks || s->fetched_bytes;
}

static void stores(const struct emf_stats *s)
{
	for (unsigned i = 0; i < s->nstores; i++) {
		const struct emf_store_stats *st = &s->store[i];
		char uri[sizeof(st->uri)], p50[TEXT_NUMBER], p99[TEXT_NUMBER], rd[TEXT_NUMBER],
		    wr[TEXT_NUMBER];

		fprintf(
		    stderr,
		    "  %-8s %s (%s): %s read, %s written; reads take %s, 99%% %s; %llu errors\n",
		    i ? "" : "stores", text_printable(st->uri, uri, sizeof(uri)),
		    text_store_state(st->state), text_size(st->read_bytes, rd),
		    text_size(st->written_bytes, wr),
		    text_time(hist_quantile(&st->read_latency, 0.5), p50),
		    text_time(hist_quantile(&st->read_latency, 0.99), p99),
		    (unsigned long long)st->errors);
	}
}

static void one(const struct emf_stats *s, double seconds)
{
	char command[64], limit[TEXT_NUMBER], peak[TEXT_NUMBER], far[TEXT_NUMBER], n[TEXT_NUMBER],
	    demand[TEXT_NUMBER], p50[TEXT_NUMBER], p99[TEXT_NUMBER], stall[TEXT_NUMBER],
	    in[TEXT_NUMBER], out[TEXT_NUMBER], clean[TEXT_NUMBER];
	uint64_t faults =
	    s->faults_demand + s->faults_standby + s->faults_write_protect + s->faults_zero;

	fprintf(stderr, "%s (PID %u)%s\n", text_printable(s->command, command, sizeof(command)),
		s->pid, s->mode == EMF_MODE_UNMANAGED ? ": ran unmanaged" : "");
	if (s->mode == EMF_MODE_IDLE)
		fprintf(stderr, "  %-8s all of it fitted into %s: nothing was moved\n", "memory",
			text_size(s->local_limit, limit));
	if (!emf_mode_active(s->mode))
		return;
	fprintf(stderr, "  %-8s budget %s, at most %s of it used; %s far at the end\n", "memory",
		text_size(s->local_limit, limit), text_size(s->peak_local_bytes, peak),
		text_size(s->far_bytes, far));
	fprintf(stderr, "  %-8s %s, %s of them waited for a store; half within %s, 99%% %s\n",
		"faults", text_count(faults, n), text_count(s->faults_demand, demand),
		text_time(hist_quantile(&s->fault_latency, 0.5), p50),
		text_time(hist_quantile(&s->fault_latency, 0.99), p99));
	fprintf(stderr, "  %-8s %s in faults, summed over threads: %.1f%% of the time\n", "waited",
		text_time(s->stall_ns, stall), (double)s->stall_ns / 1e7 / seconds);
	fprintf(stderr,
		"  %-8s %s fetched, %s written, %s dropped without a write; %llu blocks "
		"fetched ahead, %llu of them used\n",
		"moved", text_size(s->fetched_bytes, in), text_size(s->written_bytes, out),
		text_size(s->dropped_clean_bytes + s->dropped_zero_bytes, clean),
		(unsigned long long)s->prefetch_issued, (unsigned long long)s->prefetch_useful);
	if (s->lost_bytes || s->overruns)
		fprintf(stderr, "  %-8s %llu bytes were lost, the budget was exceeded %llu times\n",
			"trouble", (unsigned long long)s->lost_bytes,
			(unsigned long long)s->overruns);
	if (s->placed_blocks)
		fprintf(
		    stderr,
		    "  %-8s %s on a slow node at the end; %llu blocks copied there, %llu back\n",
		    "in place", text_size(s->placed_bytes, far),
		    (unsigned long long)s->placed_blocks, (unsigned long long)s->promoted_blocks);
	stores(s);
}

static void print(struct watch *w, double seconds, int status)
{
	static struct emf_stats s;
	unsigned shown = 0;

	fprintf(stderr, "emfatier: the command ran %.1f s and ended with %s %d\n", seconds,
		WIFSIGNALED(status) ? "signal" : "status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	for (unsigned i = 0; i < w->n; i++) {
		if (read_segment(&w->segment[i], &s)) {
			if (shown < SHOWN)
				one(&s, seconds);
			shown++;
		}
		close(w->segment[i].fd);
	}
	if (!shown)
		fprintf(stderr, "  no process of it had memory to manage (allocations of "
				"engine.min_region and more)\n");
	if (shown > SHOWN)
		fprintf(stderr, "  and %u processes more\n", shown - SHOWN + w->more);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int summary_run(const char *path, char *const *command, const char *run_dir)
{
	struct watch w = { .run_dir = run_dir };
	double begin = now();
	sigset_t mask, old;
	int events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), signals, status;

	if (events >= 0 && inotify_add_watch(events, run_dir, IN_CREATE) < 0) {
		close(events);
		events = -1;
	}
	if (events < 0)
		say(0, "--summary: %s can't be watched (%s): it will know nothing", run_dir,
		    strerror(errno));
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++)
		sigaddset(&mask, passed_on[i]);
	sigprocmask(SIG_BLOCK, &mask, &old);
	signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	w.child = signals < 0 ? -1 : fork();
	if (w.child < 0) {
		sigprocmask(SIG_SETMASK, &old, NULL);
		return say(EXIT_USAGE, "cannot start the command: %s", strerror(errno));
	}
	if (!w.child) {
		sigprocmask(SIG_SETMASK, &old, NULL);
		execvp(path, command);
		_exit(say(EXIT_USAGE, "%s: %s", path, strerror(errno)));
	}
	status = wait_for(&w, events, signals);
	print(&w, now() - begin, status);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
