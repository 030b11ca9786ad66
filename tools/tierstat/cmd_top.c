/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tierstat top: all processes on one screen, drawn by ncurses; with -b as text, screen after
 * screen, for those who have no terminal. What is drawn is the same: lines of pieces of text,
 * each with a paint.
 */
#include <curses.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "segment.h"
#include "show.h"
#include "text.h"
#include "tool.h"
#include "why.h"

#define PROCESSES 512
#define BAR 16
#define SPARK 12 /* samples in a sparkline */

enum paint { PLAIN, LOCAL, STANDBY, PLACED, FAR, ALARM, HEAD, CHOSEN, DIM };

struct process {
	struct emf_stats now, before;
	double read_at, interval; /* interval 0: seen once, no rates yet */
	bool seen;
};

enum order {
	BY_STALL,
	BY_FETCH,
	BY_LOCAL,
	BY_FAR,
	BY_MANAGED,
	BY_FAULTS,
	BY_PID,
	BY_COMMAND,
	ORDERS
};

static const char *const order_names[ORDERS] = { "stall",   "fetch",  "local", "far",
						 "managed", "faults", "pid",   "command" };

static struct {
	const struct options *opt;
	struct process *process[PROCESSES];
	unsigned n;
	enum order order;
	bool reverse, paused, curses, colour, help, why, typing;
	pid_t chosen, opened; /* opened: whose regions are shown */
	char filter[64];
	struct emf_map map;
	int row, rows, columns;
	int map_rc;
} top;

/* --- gathering --- */

static double rate(uint64_t now, uint64_t before, double interval)
{
	return interval > 0 ? (double)(now >= before ? now - before : now) / interval : 0;
}

static double stall_of(const struct process *p)
{
	return rate(p->now.stall_ns, p->before.stall_ns, p->interval) / 1e7;
}

static double fetch_of(const struct process *p)
{
	return rate(p->now.fetched_bytes, p->before.fetched_bytes, p->interval);
}

static double write_of(const struct process *p)
{
	return rate(p->now.written_bytes, p->before.written_bytes, p->interval);
}

static uint64_t faults(const struct emf_stats *s)
{
	return s->faults_demand + s->faults_standby + s->faults_write_protect + s->faults_zero;
}

static double faults_of(const struct process *p)
{
	return rate(faults(&p->now), faults(&p->before), p->interval);
}

static bool passes(const struct emf_stats *s)
{
	char glob[80];

	if (!top.filter[0])
		return true;
	snprintf(glob, sizeof(glob), "*%s*", top.filter);
	return !fnmatch(glob, s->command, 0);
}

static void seen(const struct emf_stats *s, unsigned index, void *arg)
{
	struct process *p = NULL;
	double now = tool_now();

	(void)index, (void)arg;
	for (unsigned i = 0; i < top.n && !p; i++)
		if (top.process[i]->now.pid == s->pid)
			p = top.process[i];
	if (!p) {
		if (top.n == PROCESSES || !(p = calloc(1, sizeof(*p))))
			return;
		top.process[top.n++] = p;
		p->interval = 0;
	} else {
		p->before = p->now;
		p->interval = now - p->read_at;
	}
	p->now = *s;
	p->read_at = now;
	p->seen = true;
}

static double key(const struct process *p)
{
	switch (top.order) {
	case BY_STALL:
		return stall_of(p);
	case BY_FETCH:
		return fetch_of(p);
	case BY_LOCAL:
		return (double)p->now.local_bytes;
	case BY_FAR:
		return (double)p->now.far_bytes;
	case BY_MANAGED:
		return (double)p->now.managed_bytes;
	case BY_FAULTS:
		return faults_of(p);
	default:
		return 0;
	}
}

static int compare(const void *a, const void *b)
{
	const struct process *x = *(struct process *const *)a, *y = *(struct process *const *)b;
	int by_pid = (x->now.pid > y->now.pid) - (x->now.pid < y->now.pid), c = 0;

	/* the biggest first, names and numbers from the start */
	if (top.order == BY_COMMAND)
		c = strcmp(x->now.command, y->now.command);
	else if (top.order != BY_PID)
		c = (key(x) < key(y)) - (key(x) > key(y));
	if (!c)
		c = by_pid;
	return top.reverse ? -c : c;
}

static void gather(void)
{
	static struct emf_stats s;
	unsigned n = 0;

	for (unsigned i = 0; i < top.n; i++)
		top.process[i]->seen = false;
	/* no word on standard error about those that can't be read: it would spoil the screen */
	if (top.opt->pid) {
		if (!segment_read(top.opt->dir, top.opt->pid, &s))
			seen(&s, 0, NULL);
	} else {
		pid_t *pids;
		int k = segment_list(top.opt->dir, &pids);

		for (int i = 0; i < k; i++)
			if (!segment_read(top.opt->dir, pids[i], &s) &&
			    (!top.opt->command || !fnmatch(top.opt->command, s.command, 0)))
				seen(&s, 0, NULL);
		if (k >= 0)
			free(pids);
	}
	for (unsigned i = 0; i < top.n; i++) {
		if (top.process[i]->seen)
			top.process[n++] = top.process[i];
		else
			free(top.process[i]);
	}
	top.n = n;
	if (n)
		qsort(top.process, n, sizeof(top.process[0]), compare);
	if (top.opened)
		top.map_rc = segment_map(top.opt->dir, top.opened, top.curses ? 0.6 : 3, &top.map);
}

/* --- drawing --- */

static attr_t attribute(enum paint p)
{
	bool colour = top.colour;

	switch (p) {
	case LOCAL:
		return colour ? (attr_t)COLOR_PAIR(1) : 0;
	case STANDBY:
		return colour ? (attr_t)COLOR_PAIR(2) : 0;
	case PLACED:
		return colour ? (attr_t)COLOR_PAIR(5) : 0;
	case FAR:
		return colour ? (attr_t)COLOR_PAIR(3) : 0;
	case ALARM:
		return A_BOLD | (colour ? (attr_t)COLOR_PAIR(4) : 0);
	case HEAD:
	case CHOSEN:
		return A_REVERSE;
	case DIM:
		return A_DIM;
	default:
		return 0;
	}
}

/* To so many columns: a line that is too long would go on in the next. */
static void cut(char *text, int columns)
{
	for (; *text; text++) {
		/* all but the following bytes of a character begin a column */
		if (((unsigned char)*text & 0xc0) != 0x80 && columns-- <= 0)
			break;
	}
	*text = '\0';
}

__attribute__((format(printf, 2, 3))) static void put(enum paint p, const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (!top.curses) {
		fputs(text, stdout);
		return;
	}
	if (top.row >= top.rows - 1 || getcury(stdscr) != top.row)
		return;
	cut(text, top.columns - getcurx(stdscr));
	attrset((int)attribute(p));
	addstr(text);
	attrset(0);
}

static void end_line(void)
{
	if (!top.curses) {
		putchar('\n');
		return;
	}
	if (getcury(stdscr) == top.row)
		clrtoeol();
	if (++top.row < top.rows)
		move(top.row, 0);
}

static void bar(const struct emf_stats *s)
{
	static const char *const nice[] = { "█", "▓", "▤", "░", " " }, *const plain[] = { "#", "+",
											  "p", "-",
											  " " };
	const char *const *c = text_utf8() ? nice : plain;
	uint64_t all = s->managed_bytes ? s->managed_bytes : 1, standby = s->standby_bytes,
		 frames = standby + s->free_frame_bytes,
		 local = s->local_bytes > frames ? s->local_bytes - frames : 0;
	unsigned k = 0;
	const struct {
		uint64_t bytes;
		enum paint paint;
	} part[] = { { local, LOCAL },
		     { standby, STANDBY },
		     { s->placed_bytes, PLACED },
		     { s->far_bytes, FAR } };

	for (unsigned i = 0; i < 4; i++) {
		unsigned n = (unsigned)((double)part[i].bytes / (double)all * BAR + 0.5);

		for (; n && k < BAR; n--, k++)
			put(part[i].paint, "%s", c[i]);
	}
	for (; k < BAR; k++)
		put(PLAIN, "%s", c[4]);
}

/* The newest to the right; most: what is full height. */
static void spark(const double *v, unsigned n, double most)
{
	static const char *const nice[] = { " ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
	static const char *const plain[] = { " ", ".", ".", ":", ":", "-", "=", "*", "#" };
	const char *const *c = text_utf8() ? nice : plain;

	for (unsigned i = n; i < SPARK; i++)
		put(PLAIN, " ");
	for (unsigned i = 0; i < n; i++) {
		double share = most > 0 ? v[i] / most : 0;
		unsigned k = share <= 0 ? 0 : share >= 1 ? 8 : 1 + (unsigned)(share * 7.99);

		put(PLAIN, "%s", c[k]);
	}
}

static void sparks(const struct emf_stats *s)
{
	double stall[SPARK], fetch[SPARK], most = 0;
	uint64_t count = s->history_count, n = count > SPARK ? SPARK : count ? count - 1 : 0;

	for (uint64_t i = 0; i < n; i++) {
		const struct emf_sample *a = &s->history[(count - n - 1 + i) % EMF_STATS_HISTORY],
					*b = &s->history[(count - n + i) % EMF_STATS_HISTORY];
		double seconds = (double)(b->time_ns - a->time_ns) / 1e9;

		stall[i] = seconds > 0 ? rate(b->stall_ns, a->stall_ns, seconds) / 1e9 : 0;
		fetch[i] = seconds > 0 ? rate(b->fetched_bytes, a->fetched_bytes, seconds) : 0;
		most = fetch[i] > most ? fetch[i] : most;
	}
	spark(stall, (unsigned)n, 1);
	put(PLAIN, " ");
	spark(fetch, (unsigned)n, most);
}

static void process_line(const struct process *p)
{
	const struct emf_stats *s = &p->now;
	char command[16], limit[TEXT_NUMBER], local[TEXT_NUMBER], far[TEXT_NUMBER],
	    fetch[TEXT_NUMBER], write[TEXT_NUMBER], fault[TEXT_NUMBER];
	enum paint base = top.curses && (pid_t)s->pid == top.chosen ? CHOSEN : PLAIN;
	const char *state = text_stores(s);

	put(base, "%7u %-12.12s %-6.6s %6s %6s %6s", s->pid,
	    text_printable(s->command, command, sizeof(command)), text_mode(s->mode),
	    text_size(s->local_limit, limit), text_size(s->local_bytes, local),
	    text_size(s->far_bytes, far));
	put(stall_of(p) >= 50 ? ALARM : PLAIN, " %6.1f", stall_of(p));
	put(PLAIN, " ");
	bar(s);
	put(PLAIN, " %7s %7s %7s ", text_size((uint64_t)fetch_of(p), fetch),
	    text_size((uint64_t)write_of(p), write), text_count((uint64_t)faults_of(p), fault));
	sparks(s);
	put(strcmp(state, "down") && strcmp(state, "full") ? PLAIN : ALARM, " %s", state);
	end_line();
}

static const struct process *find(pid_t pid)
{
	for (unsigned i = 0; i < top.n; i++)
		if ((pid_t)top.process[i]->now.pid == pid)
			return top.process[i];
	return NULL;
}

static void region_lines(void)
{
	const struct process *p = find(top.opened);
	int left = top.curses ? top.rows - top.row - 2 : 1000;
	char command[16];

	if (!p)
		return;
	end_line();
	put(HEAD, "regions of %u %s", p->now.pid,
	    text_printable(p->now.command, command, sizeof(command)));
	end_line();
	if (top.map_rc) {
		put(DIM, "%s",
		    p->now.mode == EMF_MODE_IDLE ? "all of it fits: nothing is moved"
						 : "no map yet");
		end_line();
		return;
	}
	left -= 2;
	put(DIM, "%14s %7s %-12s %6s %7s %6s", "ADDRESS", "LENGTH", "CLASS", "LOCAL", "STANDBY",
	    "FAR");
	end_line();
	for (unsigned i = 0; i < top.map.nregions && left > 0; i++, left--) {
		const struct emf_map_region *r = &top.map.region[i];
		struct emf_stats part = { .managed_bytes = r->length,
					  .local_bytes = r->local_bytes + r->standby_bytes,
					  .standby_bytes = r->standby_bytes,
					  .placed_bytes = r->placed_bytes,
					  .far_bytes = r->far_bytes };
		char length[TEXT_NUMBER], local[TEXT_NUMBER], standby[TEXT_NUMBER],
		    far[TEXT_NUMBER];

		put(PLAIN, "%14llx %7s %-12.12s %6s %7s %6s ", (unsigned long long)r->start,
		    text_size(r->length, length),
		    r->kept	  ? "kept"
		    : r->class[0] ? r->class
				  : "-",
		    text_size(r->local_bytes, local), text_size(r->standby_bytes, standby),
		    text_size(r->far_bytes, far));
		bar(&part);
		end_line();
	}
}

static void why_lines(void)
{
	const struct process *p = find(top.chosen);
	struct why_input in;
	struct why w;

	if (!p || !(p->interval > 0))
		return;
	in = (struct why_input){ .now = &p->now,
				 .before = &p->before,
				 .seconds = p->interval,
				 .mover = { -1, 0 },
				 .fault = { -1, 0 },
				 .now_ns = (uint64_t)(p->read_at * 1e9) };
	why_judge(&in, &w);
	end_line();
	put(HEAD, "what limits %u", p->now.pid);
	put(PLAIN, " %s", w.headline);
	end_line();
	for (unsigned i = 0; i < w.nevidence; i++) {
		put(PLAIN, "  %s", w.evidence[i]);
		end_line();
	}
	for (unsigned i = 0; i < w.nadvice; i++) {
		put(PLAIN, "  > %s", w.advice[i]);
		end_line();
	}
}

static void help_lines(void)
{
	static const char *const lines[] = {
		"",
		"  up, down    choose a process         Enter   its regions, and back",
		"  w           what limits it           /       only names with this text; Enter "
		"ends",
		"  s           sort by the next column  r       the other way round",
		"  p           pause                    h       this help, and back",
		"  q           quit",
		"",
		"  LIMIT   the budget      LOCAL   what counts against it     FAR   in the stores",
		"  TIERS   of its memory: local, standby (in a frame), in place on a slow node, "
		"far; blank: "
		"never touched",
		"  FETCH, WRITE  bytes a second from and to the stores",
		"  STALL%  time that threads wait in faults, summed: 100 is one thread that only "
		"waits",
		"  the two curves: stall (full: 100%) and fetch (full: the most of them), the last "
		"seconds",
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		put(PLAIN, "%s", lines[i]);
		end_line();
	}
}

static void title(void)
{
	double fetch = 0, write = 0, stall = 0;
	char clock[16], f[TEXT_NUMBER], w[TEXT_NUMBER];
	unsigned shown = 0;
	time_t now = time(NULL);
	struct tm tm;

	for (unsigned i = 0; i < top.n; i++) {
		const struct process *p = top.process[i];

		if (!passes(&p->now))
			continue;
		shown++;
		fetch += fetch_of(p);
		write += write_of(p);
		stall += stall_of(p);
	}
	strftime(clock, sizeof(clock), "%H:%M:%S", localtime_r(&now, &tm));
	put(PLAIN, "tierstat top  %s  %u process%s  fetch %s/s  write %s/s  stall %.1f%%%s%s%s",
	    clock, shown, shown == 1 ? "" : "es", text_size((uint64_t)fetch, f),
	    text_size((uint64_t)write, w), stall, top.filter[0] ? "  only: " : "", top.filter,
	    top.paused ? "  PAUSED" : "");
	end_line();
	put(HEAD, "%7s %-12s %-6s %6s %6s %6s %6s %-16s %7s %7s %7s %-12s %-12s %s", "PID",
	    "COMMAND", "MODE", "LIMIT", "LOCAL", "FAR", "STALL%", "TIERS", "FETCH/s", "WRITE/s",
	    "FAULT/s", "stall", "fetch", "STORE");
	end_line();
}

static void draw(void)
{
	if (top.curses) {
		getmaxyx(stdscr, top.rows, top.columns);
		top.row = 0;
		move(0, 0);
	}
	title();
	if (top.help)
		help_lines();
	for (unsigned i = 0; i < top.n && !top.help; i++)
		if (passes(&top.process[i]->now))
			process_line(top.process[i]);
	if (!top.n && !top.help) {
		put(DIM, "no managed process in %s", top.opt->dir);
		end_line();
	}
	if (top.opened && !top.help)
		region_lines();
	if (top.why && !top.help)
		why_lines();
	if (!top.curses)
		return;
	clrtobot();
	move(top.rows - 1, 0);
	attrset((int)A_REVERSE);
	if (top.typing)
		printw("/%s_", top.filter);
	else
		printw("q quit  h help  s sort: %s%s  / filter  Enter regions  w why  p pause",
		       order_names[top.order], top.reverse ? " reversed" : "");
	attrset(0);
	clrtoeol();
	refresh();
}

/* --- keys --- */

static void move_choice(int by)
{
	int at = -1, n = 0;
	pid_t shown[PROCESSES];

	for (unsigned i = 0; i < top.n; i++) {
		if (!passes(&top.process[i]->now))
			continue;
		if ((pid_t)top.process[i]->now.pid == top.chosen)
			at = n;
		shown[n++] = (pid_t)top.process[i]->now.pid;
	}
	if (!n)
		return;
	at = at < 0 ? 0 : at + by < 0 ? 0 : at + by >= n ? n - 1 : at + by;
	top.chosen = shown[at];
}

static void type(int ch)
{
	size_t n = strlen(top.filter);

	if (ch == '\n' || ch == KEY_ENTER || ch == 27) {
		if (ch == 27)
			top.filter[0] = '\0';
		top.typing = false;
	} else if ((ch == KEY_BACKSPACE || ch == 127 || ch == 8) && n) {
		top.filter[n - 1] = '\0';
	} else if (ch >= ' ' && ch < 127 && n + 1 < sizeof(top.filter)) {
		top.filter[n] = (char)ch;
		top.filter[n + 1] = '\0';
	}
}

/* False: quit. */
static bool handle(int ch)
{
	if (top.typing) {
		type(ch);
		return true;
	}
	switch (ch) {
	case 'q':
		return false;
	case 'h':
	case '?':
		top.help = !top.help;
		break;
	case 's':
		top.order = (top.order + 1) % ORDERS;
		break;
	case 'r':
		top.reverse = !top.reverse;
		break;
	case 'p':
		top.paused = !top.paused;
		break;
	case 'w':
		top.why = !top.why;
		move_choice(0);
		break;
	case '/':
		top.typing = true;
		top.filter[0] = '\0';
		break;
	case KEY_UP:
		move_choice(-1);
		break;
	case KEY_DOWN:
		move_choice(top.chosen ? 1 : 0);
		break;
	case '\n':
	case KEY_ENTER:
		move_choice(0);
		top.opened = top.opened == top.chosen ? 0 : top.chosen;
		if (top.opened)
			top.map_rc = segment_map(top.opt->dir, top.opened, 1.5, &top.map);
		break;
	default:
		break;
	}
	if (top.n)
		qsort(top.process, top.n, sizeof(top.process[0]), compare);
	return true;
}

static int batch(const struct options *opt)
{
	double due = tool_now();
	unsigned long count = opt->count ? opt->count : opt->delay > 0 ? 0 : 1;
	double delay = opt->delay > 0 ? opt->delay : 1;

	/* rates need two readings */
	gather();
	if (opt->pid) {
		if (!top.n)
			return tool_unreadable(opt->pid, -ESRCH);
		top.opened = opt->pid;
	}
	for (unsigned long i = 1;; i++) {
		due += delay;
		tool_sleep_until(due);
		gather();
		draw();
		if ((count && i >= count) || fflush(stdout))
			break;
		putchar('\n');
	}
	for (unsigned i = 0; i < top.n; i++)
		if (segment_degraded(&top.process[i]->now))
			return EXIT_DEGRADED;
	return 0;
}

static void begin_curses(void)
{
	const char *no = getenv("NO_COLOR");

	initscr();
	cbreak();
	noecho();
	keypad(stdscr, TRUE);
	curs_set(0);
	set_escdelay(50);
	top.colour = !(no && *no) && has_colors();
	if (top.colour) {
		start_color();
		use_default_colors();
		init_pair(1, COLOR_GREEN, -1);
		init_pair(2, COLOR_CYAN, -1);
		init_pair(3, COLOR_YELLOW, -1);
		init_pair(4, COLOR_RED, -1);
		init_pair(5, COLOR_MAGENTA, -1);
	}
}

int cmd_top(const struct options *opt)
{
	double delay = opt->delay > 0 ? opt->delay : 1, due;
	bool go_on = true;

	top.opt = opt;
	if (opt->bytes)
		return batch(opt);
	if (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO))
		return say(EXIT_USAGE, "top needs a terminal; tierstat top -b writes text");
	if (!getenv("TERM") || !*getenv("TERM"))
		return say(EXIT_USAGE, "top needs TERM; tierstat top -b writes text");
	top.curses = true;
	gather();
	if (opt->pid && !top.n)
		return tool_unreadable(opt->pid, -ESRCH);
	begin_curses();
	due = tool_now() + (delay < 0.5 ? delay : 0.5); /* the first rates soon */
	for (unsigned long i = 0; go_on;) {
		int wait, ch;

		draw();
		wait = (int)((due - tool_now()) * 1000);
		timeout(wait > 0 ? wait : 0);
		ch = getch();
		if (ch == ERR) {
			if (!top.paused) {
				gather();
				if (opt->count && ++i >= opt->count)
					break;
			}
			due = tool_now() + delay;
		} else {
			go_on = handle(ch);
		}
	}
	endwin();
	return 0;
}
