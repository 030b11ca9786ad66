/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../common/say.h"
#include "../tierstat/segment.h"
#include "kernel.h"
#include "live.h"
#include "mailbox.h"
#include "members.h"
#include "rundir.h"

#define USAGE "usage: emfatier ctl PID set SECTION.KEY=VALUE, emfatier ctl PID store add|drain URI"
#define ANSWER_MS 5000
#define STORE_MS 20000 /* to an answer about a store, which has to be opened */
#define QUIET_MS 1000  /* progress is shown of what takes longer */
#define STUCK_MS 15000 /* that it may go without progress */
#define TURN_MS 10000  /* for another ctl to be done */

struct target {
	pid_t pid;
	char dir[PATH_MAX];
	struct emf_stats stats;
	struct mailbox *mailbox;
	bool later;	/* nobody has looked at it yet */
	uint32_t store; /* that the answer is about, from 1 */
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

static int wrong(pid_t pid, const char *what)
{
	return say(EXIT_WRONG, "ctl: PID %d: %s", (int)pid, what);
}

static int gone(pid_t pid)
{
	return say(EXIT_NO_PROCESS, "ctl: no managed process with PID %d (tierstat lists them)",
		   (int)pid);
}

static bool parse_pid(const char *text, pid_t *out)
{
	char *end;
	long pid;

	errno = 0;
	pid = strtol(text, &end, 10);
	*out = (pid_t)pid;
	return text[0] >= '0' && text[0] <= '9' && !*end && !errno && pid > 0 && pid <= INT_MAX;
}

/* Is it another user's? Root may change every process whose run directory it uses. */
static bool is_foreign(pid_t pid, uid_t *owner)
{
	struct stat st;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (stat(path, &st))
		return false;
	*owner = st.st_uid;
	return geteuid() && st.st_uid != geteuid();
}

/* 0, or the exit status. */
static int look(struct target *t)
{
	int rc = segment_read(t->dir, t->pid, &t->stats);

	for (int i = 0; rc == -EAGAIN && i < 50; i++) {
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
		rc = segment_read(t->dir, t->pid, &t->stats);
	}
	if (rc == -ESRCH)
		return gone(t->pid);
	if (rc)
		return wrong(t->pid, rc == -EPROTO ? "runs with another version of emfatier"
						   : strerror(-rc));
	return 0;
}

static int open_mailbox(struct target *t)
{
	const size_t size = MAILBOX_OFFSET + sizeof(struct mailbox);
	char path[PATH_MAX + 32];
	struct stat st;
	char *map;
	int fd;

	snprintf(path, sizeof(path), "%s/%d.stats", t->dir, (int)t->pid);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return gone(t->pid);
	if (fd < 0 || fstat(fd, &st))
		return say(EXIT_WRONG, "ctl: %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)size)
		return wrong(t->pid, "it runs with another version of emfatier");
	/* One at a time; the lock ends with us. */
	for (int waited = 0; flock(fd, LOCK_EX | LOCK_NB); waited += 50) {
		if (waited >= TURN_MS)
			return wrong(t->pid, "another emfatier ctl of this process does not end");
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	}
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return say(EXIT_WRONG, "ctl: %s: %s", path, strerror(errno));
	t->mailbox = (struct mailbox *)(map + MAILBOX_OFFSET);
	if (atomic_load(&t->mailbox->magic) != MAILBOX_MAGIC)
		return wrong(t->pid, "it runs with another version of emfatier");
	return 0;
}

/* Its words, with what does not belong on a terminal replaced. */
static void copy_reply(const struct mailbox_slot *s, char *out)
{
	memcpy(out, s->reply, MAILBOX_TEXT);
	out[MAILBOX_TEXT - 1] = '\0';
	for (char *p = out; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
}

/* 0 done, EXIT_*: refused, or no answer. */
static int ask(struct target *t, const char *text, int limit_ms)
{
	struct mailbox *m = t->mailbox;
	uint32_t n = atomic_load(&m->asked), answered = atomic_load(&m->answered);
	struct mailbox_slot *s = &m->slot[n % MAILBOX_SLOTS];
	char reply[MAILBOX_TEXT];

	t->later = false;
	if (n - answered >= MAILBOX_SLOTS)
		return wrong(t->pid, "it has not looked at earlier changes yet; try later");
	memset(s, 0, sizeof(*s));
	strcpy(s->text, text);
	atomic_store(&m->asked, n + 1);
	k_futex_wake_shared(&m->asked, INT_MAX);
	for (int waited = 0; (int32_t)(atomic_load(&m->answered) - n) <= 0; waited += 50) {
		int rc;

		if (!atomic_load(&m->attended) && waited >= 200) {
			t->later = true;
			return 0;
		}
		if (waited >= limit_ms)
			return wrong(t->pid, "it does not answer; is it stopped? The change is "
					     "made when it goes on");
		k_futex_wait_shared(&m->answered, atomic_load(&m->answered), 50);
		rc = look(t);
		if (rc)
			return rc;
	}
	copy_reply(s, reply);
	t->store = atomic_load(&s->store);
	if (atomic_load(&s->status) == MAILBOX_DONE) {
		if (*reply)
			printf("%s\n", reply);
		return 0;
	}
	return say(EXIT_USAGE, "ctl: PID %d: %s", (int)t->pid, reply);
}

static uint64_t now_ms(void)
{
	return k_now_ns() / 1000000;
}

static int not_waiting(void)
{
	fprintf(stderr, "emfatier: ctl: not waiting any longer; the process goes on with it\n");
	return 128 + SIGINT;
}

/* Until what is local fits into the budget. */
static int wait_fit(struct target *t)
{
	uint64_t begin = now_ms(), least = UINT64_MAX, progress = begin, shown = begin;

	for (;;) {
		uint64_t now = now_ms(), local, limit;
		int rc = look(t);

		if (rc)
			return rc;
		if (t->stats.mode == EMF_MODE_UNMANAGED)
			return wrong(t->pid, "it could not start to move memory; its log says why");
		local = t->stats.local_bytes;
		limit = t->stats.local_limit;
		if (local <= limit)
			return 0;
		if (local < least) {
			least = local;
			progress = now;
		}
		if (now - begin >= QUIET_MS && now - shown >= QUIET_MS) {
			fprintf(stderr,
				"emfatier: ctl: local %" PRIu64 "M, on its way to %" PRIu64 "M\n",
				local >> 20, limit >> 20);
			shown = now;
		}
		if (interrupted)
			return not_waiting();
		if (now - progress > STUCK_MS)
			return wrong(t->pid, "no progress: the store takes no more, or the rest is "
					     "locked; it goes on with it (tierstat -p PID)");
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	}
}

/* Until nothing is to be moved from it, or to it, any more. One that is back may be shown as well
 * for a moment before that goes on. */
static int wait_moved(struct target *t, bool drain)
{
	const struct emf_store_stats *s = &t->stats.store[t->store - 1];
	const uint32_t moving = drain ? EMF_STORE_DRAINING : EMF_STORE_REBUILDING;
	uint64_t begin = now_ms(), least = UINT64_MAX, progress = begin, shown = begin;

	for (;;) {
		uint64_t now = now_ms();
		int rc = look(t);

		if (rc)
			return rc;
		if (s->state == EMF_STORE_DRAINED && drain)
			return 0;
		if (s->state != moving && s->state != EMF_STORE_DOWN && !s->rebuild_bytes) {
			if (!drain)
				return 0;
			return wrong(t->pid, "the store stays: the others have no room for the rest, or "
					     "it can't be read right; the log says which");
		}
		if (s->rebuild_bytes < least) {
			least = s->rebuild_bytes;
			progress = now;
		}
		if (now - begin >= QUIET_MS && now - shown >= QUIET_MS) {
			fprintf(stderr, "emfatier: ctl: %" PRIu64 "M are still to be moved\n",
				(uint64_t)s->rebuild_bytes >> 20);
			shown = now;
		}
		if (interrupted)
			return not_waiting();
		if (now - progress > STUCK_MS)
			return wrong(t->pid,
				     "no progress: forked children share the store, or one does "
				     "not answer; it goes on with it (tierstat stores PID)");
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	}
}

/* 0, or the exit status. */
static int find(struct target *t)
{
	uid_t owner;
	int rc = run_dir(t->dir, sizeof(t->dir), false);

	if (is_foreign(t->pid, &owner))
		return say(
		    EXIT_WRONG,
		    "ctl: PID %d belongs to another user (uid %u); run it as that user or as root",
		    (int)t->pid, (unsigned)owner);
	if (rc == -ENOENT)
		return gone(t->pid);
	if (rc)
		return say(EXIT_WRONG, "ctl: %s: refused: %s", t->dir, strerror(-rc));
	rc = look(t);
	if (rc)
		return rc;
	if (t->stats.mode == EMF_MODE_UNMANAGED)
		return wrong(t->pid, "it runs unmanaged; its log says why");
	return open_mailbox(t);
}

static int set(struct target *t, int argc, char **argv)
{
	char why[1024];
	int rc;

	if (argc != 4)
		return say(EXIT_USAGE, "ctl: set takes one SECTION.KEY=VALUE; " USAGE);
	if (!live_check(argv[3], why, sizeof(why)))
		return say(EXIT_USAGE, "ctl: %s", why);
	if (strlen(argv[3]) >= MAILBOX_TEXT)
		return say(EXIT_USAGE, "ctl: the setting is too long; at most %d characters",
			   MAILBOX_TEXT - 1);
	rc = find(t);
	if (!rc)
		rc = ask(t, argv[3], ANSWER_MS);
	if (rc)
		return rc;
	if (t->later && emf_mode_active(t->stats.mode))
		return wrong(t->pid,
			     "a program with a malloc of its own takes up no change once memory "
			     "moves; start it with the setting");
	if (t->later) {
		printf("noted; PID %d manages little and takes it up when it next manages more\n",
		       (int)t->pid);
		return 0;
	}
	signal(SIGINT, on_interrupt);
	return wait_fit(t);
}

static int store(struct target *t, int argc, char **argv)
{
	char text[MAILBOX_TEXT];
	const char *uri;
	bool drain;
	int rc;

	if (argc != 5 || (strcmp(argv[3], "add") && strcmp(argv[3], "drain")))
		return say(EXIT_USAGE, "ctl: store takes add URI, or drain URI; " USAGE);
	if (snprintf(text, sizeof(text), "store %s %s", argv[3], argv[4]) >= (int)sizeof(text))
		return say(EXIT_USAGE, "ctl: the URI is too long; at most %d characters",
			   MAILBOX_TEXT - 1 - (int)strlen("store drain "));
	if (!members_parse(text, &drain, &uri))
		return say(EXIT_USAGE, "ctl: which store? " USAGE);
	rc = find(t);
	/* What manages little would take it up later, and has no store then either. */
	if (!rc && !emf_mode_active(t->stats.mode))
		return wrong(t->pid,
			     "its memory fits, and no store is open yet; start it with the stores");
	if (!rc)
		rc = ask(t, text, STORE_MS);
	if (rc)
		return rc;
	if (t->later)
		return wrong(t->pid,
			     "a program with a malloc of its own takes up no change once memory "
			     "moves; start it with the stores");
	if (!t->store || t->store > EMF_STATS_STORES)
		return wrong(t->pid, "it runs with another version of emfatier");
	signal(SIGINT, on_interrupt);
	return wait_moved(t, drain);
}

int ctl_main(int argc, char **argv)
{
	static struct target t;

	if (argc < 2)
		return say(EXIT_USAGE, "ctl: which PID? " USAGE);
	if (!parse_pid(argv[1], &t.pid))
		return say(EXIT_USAGE, "ctl: %s is no PID; " USAGE, argv[1]);
	if (argc > 2 && !strcmp(argv[2], "set"))
		return set(&t, argc, argv);
	if (argc > 2 && !strcmp(argv[2], "store"))
		return store(&t, argc, argv);
	return say(EXIT_USAGE, "ctl: %s " USAGE,
		   argc < 3 ? "what is to be done?" : "the commands are set and store;");
}
