/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program may see of its system calls, signals and registers when others look at each of its
 * calls first (engine.fault=signal); it must see the same without that. See rows.h.
 */
#include "rows.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <ucontext.h>

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ull
#endif
#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

/* A word at the start of page i, alone on it and cold. */
static void *cold_at(char *p, size_t i)
{
	return p + i * PAGE;
}

static void refuses(long r, const char *what)
{
	CHECK(r == -1 && errno == EFAULT, "%s: %ld, %s", what, r, strerror(errno));
	errno = 0;
}

/* Addresses that are none are for the kernel to refuse. */
static void row_bad_pointers(size_t size)
{
	char *none = SYS(mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	char *p = filled(size);
	struct pollfd fd = {-1, 0, 0};
	struct epoll_event event;
	struct timespec soon = {0, 1000};
	struct {
		void *mask;
		size_t len;
	} with = {none, 8};
	struct iovec v = {none, 8};
	struct msghdr m = {.msg_iov = (void *)none, .msg_iovlen = 1};
	int null = SYS(open("/dev/zero", O_RDWR)), sv[2], ep = SYS(epoll_create1(0));
	sigset_t set;

	sigemptyset(&set);
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	refuses(syscall(SYS_rt_sigprocmask, SIG_BLOCK, none, NULL, 8), "sigprocmask, set");
	refuses(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, none, 8), "sigprocmask, old");
	refuses(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, none, 8), "sigprocmask, old alone");
	for (int sig = 1; sig < 32; sig++) {
		if (sig == SIGKILL || sig == SIGSTOP)
			continue;
		refuses(syscall(SYS_rt_sigaction, sig, none, NULL, 8), "sigaction, set");
		refuses(syscall(SYS_rt_sigaction, sig, NULL, none, 8), "sigaction, old");
	}
	refuses(syscall(SYS_rt_sigsuspend, none, 8), "sigsuspend");
	refuses(syscall(SYS_sigaltstack, none, NULL), "sigaltstack");
	refuses(syscall(SYS_sigaltstack, NULL, none), "sigaltstack, old");
	refuses(syscall(SYS_ppoll, &fd, 1, &soon, none, 8), "ppoll, mask");
	refuses(syscall(SYS_ppoll, none, 1, &soon, NULL, 8), "ppoll");
	refuses(syscall(SYS_pselect6, 0, NULL, NULL, NULL, &soon, none), "pselect");
	refuses(syscall(SYS_pselect6, 0, NULL, NULL, NULL, &soon, &with), "pselect, mask");
	refuses(syscall(SYS_epoll_pwait, ep, &event, 1, 0, none, 8), "epoll_pwait");
	refuses(syscall(SYS_clone3, none, sizeof(struct clone_args)), "clone3");
	refuses(syscall(SYS_clone3, NULL, sizeof(struct clone_args)), "clone3, NULL");
	refuses(writev(null, (void *)none, 1), "writev, vector");
	refuses(readv(null, &v, 1), "readv");
	refuses(syscall(SYS_sendmsg, sv[0], none, 0), "sendmsg");
	refuses(sendmsg(sv[0], &m, 0), "sendmsg, vector");
	refuses(syscall(SYS_execve, none, NULL, NULL), "execve");
	refuses(syscall(SYS_execve, "/bin/true", none, NULL), "execve, arguments");
	refuses(syscall(SYS_read, null, none, 8), "read");
	refuses(syscall(SYS_read, null, -1l, 8), "read to the last byte there is");
	check_pages(p, 0, size / PAGE, 1, "after that");
}

/* --- masks, actions and exec --- */

static uint64_t mask_now(void)
{
	uint64_t now = 0;

	SYS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &now, 8));
	return now;
}

/* What a program that is not managed finds in its status. */
static uint64_t status_after_exec(const char *what)
{
	char line[256];
	uint64_t found = 0;
	int fds[2];

	SYS(pipe(fds));
	pid_t pid = SYS(fork());
	if (!pid) {
		setenv("EMFATIER_DISABLE", "1", 1);
		dup2(fds[1], 1);
		execlp("cat", "cat", "/proc/self/status", NULL);
		_exit(1);
	}
	close(fds[1]);
	FILE *f = fdopen(fds[0], "r");
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, what, strlen(what)))
			found = strtoull(line + strlen(what), NULL, 16);
	fclose(f);
	expect_child(pid, "cat");
	return found;
}

#define BIT(sig) (1ull << ((sig)-1))

/* They outlive exec. */
static void row_exec_mask(size_t size)
{
	char *p = filled(size);
	uint64_t both = BIT(SIGBUS) | BIT(SIGSYS), all = both | BIT(SIGUSR1);

	CHECK((mask_now() & all) == (getenv("CAME_BLOCKED") ? both : 0), "from the start: %lx",
	      (long)mask_now());
	SYS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, 8));
	CHECK((mask_now() & all) == all, "%lx", (long)mask_now());
	CHECK((status_after_exec("SigBlk:") & all) == all, "blocked: %lx",
	      (long)status_after_exec("SigBlk:"));
	/* One that is refused leaves all as it was. */
	CHECK(execl("/nowhere", "nowhere", NULL) == -1 && errno == ENOENT, "%s", strerror(errno));
	check_pages(p, 0, size / PAGE, 1, "blocked");
	SYS(syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &all, NULL, 8));
	CHECK(!(mask_now() & all), "%lx", (long)mask_now());
	CHECK(!(status_after_exec("SigBlk:") & all), "not blocked");
	check_pages(p, 0, size / PAGE, 1, "not blocked");
	/* Who comes to be so finds it. */
	if (getenv("CAME_BLOCKED"))
		return;
	SYS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &both, NULL, 8));
	pid_t pid = SYS(fork());
	if (!pid) {
		setenv("CAME_BLOCKED", "1", 1);
		setenv("TIERSTAT_OUT", "", 1);
		execl("/proc/self/exe", "guarded", "exec-mask", "8M", NULL);
		_exit(1);
	}
	expect_child(pid, "who came blocked");
}

/* --- errno --- */

static pthread_barrier_t barrier;
static char *errno_memory;
static size_t errno_pages;

static void *touch_together(void *arg)
{
	for (size_t i = 0; i < errno_pages; i += 61) {
		pthread_barrier_wait(&barrier);
		errno = 4711;
		volatile char *at = errno_memory + i * PAGE;
		char c = *at;
		*at = c;
		CHECK(errno == 4711, "errno is %d after an access", errno);
	}
	return arg;
}

/* Memory has no errno. */
static void row_errno(size_t size)
{
	enum { N = 4 };
	pthread_t t[N];

	errno_memory = filled(size);
	errno_pages = size / PAGE;
	pthread_barrier_init(&barrier, NULL, N);
	for (unsigned i = 0; i < N; i++)
		CHECK(!pthread_create(&t[i], NULL, touch_together, NULL), "thread");
	for (unsigned i = 0; i < N; i++)
		pthread_join(t[i], NULL);
	for (size_t i = 0; i < errno_pages; i++) {
		errno = 4711;
		(void)*(volatile char *)(errno_memory + i * PAGE);
		CHECK(errno == 4711, "errno is %d after an access", errno);
	}
	check_pages(errno_memory, 0, errno_pages, 1, "after that");
}

/* --- handlers --- */

static volatile sig_atomic_t alarms;
static char *alarm_memory;
static size_t alarm_pages;

static void alarm_soon(long us)
{
	struct itimerval soon = {{0, 0}, {0, us}};

	setitimer(ITIMER_REAL, &soon, NULL);
}

static void on_alarm(int sig)
{
	size_t i = mix((uint64_t)alarms) % alarm_pages;
	int saved = errno;

	(void)sig;
	page_check(alarm_memory + i * PAGE, i, 1, SEED, "in a signal handler");
	alarms++;
	alarm_soon(300);
	errno = saved;
}

/* Populating, interrupted by who touches what is cold. */
static void row_populate_alarms(size_t size)
{
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	const size_t piece = 1u << 20;

	alarm_memory = filled(size);
	alarm_pages = size / PAGE;
	SYS(sigaction(SIGALRM, &sa, NULL));
	alarm_soon(300);
	for (size_t i = 0; alarms < 300; i++)
		if (madvise(alarm_memory + i % (size / piece) * piece, piece, MADV_POPULATE_READ))
			CHECK(errno == EINVAL || errno == EAGAIN || errno == EINTR, "%s", strerror(errno));
	alarms = 0;
	alarm_soon(0);
	check_pages(alarm_memory, 0, size / PAGE, 1, "after that");
}

static int calls_fd;

static void on_call(int sig)
{
	struct iovec v[8];
	int saved = errno;

	(void)sig;
	for (unsigned i = 0; i < 8; i++)
		v[i] = (struct iovec){alarm_memory + mix((uint64_t)alarms * 8 + i) % alarm_pages * PAGE, 64};
	if (pwritev(calls_fd, v, 8, 4096) != 512)
		die("in a handler: %s", strerror(errno));
	alarms++;
	alarm_soon(120);
	errno = saved;
}

/* Handlers that make calls, in the middle of calls and at their ends. */
static void row_calls_in_handlers(size_t size)
{
	struct sigaction sa = {.sa_handler = on_call, .sa_flags = SA_RESTART};

	alarm_memory = filled(size);
	alarm_pages = size / PAGE;
	calls_fd = SYS(temp_file(O_RDWR));
	SYS(sigaction(SIGALRM, &sa, NULL));
	alarm_soon(120);
	for (uint64_t i = 0; alarms < 1000; i++) {
		struct iovec v[20];
		for (unsigned k = 0; k < 20; k++)
			v[k] = (struct iovec){alarm_memory + mix(i * 20 + k + 77) % alarm_pages * PAGE + 128, 32};
		CHECK(pwritev(calls_fd, v, 20, 0) == 640, "%s", strerror(errno));
	}
	alarm_soon(0);
	alarms = 0;
	check_pages(alarm_memory, 0, alarm_pages, 1, "after that");
}

static sigjmp_buf left;
static char *handler_memory;
static size_t handler_page;
static int handler_fd;

/* It uses cold memory itself, by an access and by a call. */
static void on_usr1(int sig)
{
	const char *at = handler_memory + handler_page * PAGE;

	(void)sig;
	if (*(const volatile uint64_t *)(const void *)at != handler_page ||
	    pwrite(handler_fd, at + 2 * PAGE, PAGE, (off_t)((handler_page + 2) * PAGE)) != (ssize_t)PAGE)
		die("in a handler, page %zu", handler_page);
}

/* An alternate stack as small as they may be; what lies around it is not touched. */
static void small_stack(size_t len, size_t size)
{
	static char around[3 * 65536] __attribute__((aligned(4096)));
	struct sigaction sa = {.sa_handler = on_usr1, .sa_flags = SA_ONSTACK};
	int fd = SYS(temp_file(O_RDWR));
	stack_t old, now = {.ss_sp = around + 65536, .ss_size = len};
	size_t n = size / PAGE;
	char *p = filled(size);

	handler_memory = p;
	handler_fd = fd;
	memset(around, 0x5a, sizeof(around));
	SYS(sigaltstack(&now, &old));
	CHECK(old.ss_flags == SS_DISABLE, "there was one, flags %d", old.ss_flags);
	SYS(sigaction(SIGUSR1, &sa, NULL));
	for (size_t i = 0; i < n; i += 97) {
		CHECK(SYS(pwrite(fd, p + i * PAGE, PAGE, (off_t)(i * PAGE))) == (ssize_t)PAGE, "short");
		CHECK(SYS(pread(fd, p + i * PAGE, PAGE, (off_t)(i * PAGE))) == (ssize_t)PAGE, "short");
		handler_page = (i + n / 2) % (n - 2);
		SYS(raise(SIGUSR1));
	}
	check_pages(p, 0, n, 1, "with a small stack");
	size_t low = 0;
	while (around[65536 + low] == 0x5a)
		low++;
	if (getenv("SHOW"))
		fprintf(stderr, "of %zu bytes %zu were used\n", len, len - low);
	for (size_t i = 0; i < 65536; i++)
		CHECK(around[i] == 0x5a && around[65536 + len + i] == 0x5a, "byte %zu is changed", i);
	SYS(sigaltstack(NULL, &old));
	CHECK(old.ss_sp == now.ss_sp && old.ss_size == len && !old.ss_flags, "another stack: %p %zu %d",
	      old.ss_sp, old.ss_size, old.ss_flags);
	now.ss_flags = SS_DISABLE;
	SYS(sigaltstack(&now, NULL));
	SYS(sigaltstack(NULL, &old));
	CHECK(old.ss_flags == SS_DISABLE, "it is still there");
	SYS(munmap(p, size));
	close(fd);
}

static void row_small_stack(size_t size)
{
	/* As large as SIGSTKSZ once was, and so on. */
	small_stack(8192, size);
	small_stack(32768, size);
	small_stack(65536, size);
}

extern char **environ;
static volatile sig_atomic_t handled;

/* Far up the alternate stack; the child has another one, in the same memory. */
static void on_crash(int sig)
{
	volatile unsigned char mine[4096];
	static char *argv[] = {"true", NULL};
	pid_t pid;

	(void)sig;
	for (size_t i = 0; i < sizeof(mine); i++)
		mine[i] = (unsigned char)(i * 7);
	CHECK(!posix_spawnp(&pid, "true", NULL, NULL, argv, environ), "posix_spawn");
	for (size_t i = 0; i < sizeof(mine); i++)
		CHECK(mine[i] == (unsigned char)(i * 7), "byte %zu of the handler's is changed", i);
	expect_child(pid, "true");
	handled++;
}

/* As those do that call a debugger when the program crashes. */
static void row_spawn_in_handler(size_t size)
{
	struct sigaction sa = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK};
	char *p = filled(size);

	SYS(sigaction(SIGUSR1, &sa, NULL));
	for (unsigned i = 0; i < 3; i++) {
		static char memory[2][131072];
		stack_t now = {.ss_sp = memory[i / 2], .ss_size = i == 1 ? 16384 : sizeof(memory[0])};
		if (i)
			SYS(sigaltstack(&now, NULL));
		SYS(raise(SIGUSR1));
	}
	CHECK(handled == 3, "%d", (int)handled);
	check_pages(p, 0, size / PAGE, 1, "after that");
}

static void on_bus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	(void)context;
	siglongjmp(left, 1);
}

void __longjmp_chk(sigjmp_buf env, int value) __attribute__((noreturn));

static void on_bus_checked(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	(void)context;
	__longjmp_chk(left, 1);
}

static void past_the_end(void *handler)
{
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO}, old;
	int fd = SYS(temp_file(O_RDWR));
	char *p = SYS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0));

	SYS(sigaction(SIGBUS, &sa, &old));
	for (unsigned i = 0; i < 20; i++) {
		if (sigsetjmp(left, 1))
			continue;
		(void)*(volatile char *)p;
		die("no SIGBUS behind the end of a file");
	}
	SYS(sigaction(SIGBUS, &old, NULL));
	munmap(p, PAGE);
	close(fd);
}

static void *past_in_thread(void *arg)
{
	past_the_end(on_bus);
	past_the_end(on_bus_checked);
	return arg;
}

/* Out of a handler of SIGBUS, also by the longjmp that looks whether it goes up the stack. */
static void row_bus_longjmp(size_t size)
{
	char *p = filled(size);
	pthread_attr_t attr;
	pthread_t t;

	past_in_thread(NULL);
	check_pages(p, 0, size / PAGE, 1, "after that");
	/* Stacks above and below all others. */
	for (unsigned i = 0; i < 3; i++) {
		void *stack = SYS(mmap(i == 1 ? (void *)0x10000000 : NULL, 1 << 20, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0));
		pthread_attr_init(&attr);
		CHECK(!pthread_attr_setstack(&attr, stack, 1 << 20), "stack");
		CHECK(!pthread_create(&t, &attr, past_in_thread, NULL), "thread");
		pthread_join(t, NULL);
	}
	check_pages(p, 0, size / PAGE, 1, "after that");
}

static void on_leave(int sig)
{
	(void)sig;
	siglongjmp(left, 1);
}

/* Calls that never return. */
static void row_left(size_t size)
{
	struct sigaction sa = {.sa_handler = on_leave};
	char *p = filled(size);
	volatile unsigned i;
	int fds[2];

	SYS(pipe(fds));
	SYS(sigaction(SIGALRM, &sa, NULL));
	for (i = 0; i < 100; i++) {
		char *at = p + mix(i) % (size / PAGE) * PAGE;
		if (sigsetjmp(left, 1))
			continue;
		alarm_soon(500);
		CHECK(read(fds[0], at, PAGE) < 0, "there is nothing");
	}
	alarm_soon(0);
	chill(size);
	check_pages(p, 0, size / PAGE, 1, "after that");
}

/* --- calls that wait --- */

static volatile sig_atomic_t usr1, usr2;

static void count(int sig)
{
	if (sig == SIGUSR1)
		usr1++;
	else
		usr2++;
}

/* Masks for the time of a call, in memory that is cold, with all of the signals in them. */
static void row_waiting_masks(size_t size)
{
	struct sigaction sa = {.sa_handler = count};
	char *p = filled(size);
	size_t step = size / PAGE / 8;
	sigset_t *but_usr1 = cold_at(p, step), blocked, pending, was, now;
	struct timespec *soon = cold_at(p, 2 * step);
	struct {
		sigset_t *mask;
		size_t len;
	} *with = cold_at(p, 3 * step);
	struct epoll_event *event = cold_at(p, 4 * step);
	int ep = SYS(epoll_create1(0));

	sigfillset(but_usr1);
	sigdelset(but_usr1, SIGUSR1);
	*soon = (struct timespec){5, 0};
	*with = (__typeof__(*with)){but_usr1, 8};
	SYS(sigaction(SIGUSR1, &sa, NULL));
	SYS(sigaction(SIGUSR2, &sa, NULL));
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigaddset(&blocked, SIGUSR2);
	sigaddset(&blocked, SIGBUS);
	SYS(sigprocmask(SIG_BLOCK, &blocked, &was));
	for (int i = 0; i < 10; i++) {
		SYS(raise(SIGUSR1));
		SYS(raise(SIGUSR2));
		if (i % 5 == 0)
			chill(size);
		long r = i % 5 == 0   ? syscall(SYS_ppoll, NULL, 0, soon, but_usr1, 8)
			 : i % 5 == 1 ? syscall(SYS_pselect6, 0, NULL, NULL, NULL, soon, with)
			 : i % 5 == 2 ? syscall(SYS_epoll_pwait, ep, event, 1, 5000, but_usr1, 8)
			 : i % 5 == 3 ? syscall(SYS_rt_sigsuspend, but_usr1, 8)
				      : syscall(441 /* epoll_pwait2 */, ep, event, 1, soon, but_usr1, 8);
		CHECK(r == -1 && errno == EINTR, "call %d: %ld, %s", i, r, strerror(errno));
		CHECK(usr1 == i + 1 && usr2 == 0, "call %d: %d and %d signals", i, usr1, usr2);
		SYS(sigpending(&pending));
		CHECK(sigismember(&pending, SIGUSR2) == 1, "SIGUSR2 is not pending");
		SYS(sigprocmask(SIG_BLOCK, NULL, &now));
		CHECK(sigismember(&now, SIGUSR1) == 1 && sigismember(&now, SIGBUS) == 1 &&
			      sigismember(&now, SIGINT) == 0,
		      "another mask after call %d", i);
	}
	siginfo_t *info = cold_at(p, 5 * step);
	sigset_t *set = cold_at(p, 6 * step);
	sigemptyset(set);
	sigaddset(set, SIGUSR2);
	chill(size);
	CHECK(SYS(sigtimedwait(set, info, soon)) == SIGUSR2 && info->si_signo == SIGUSR2, "sigtimedwait");
	SYS(sigprocmask(SIG_SETMASK, &was, NULL));
	CHECK(usr1 == 10 && usr2 == 0, "%d and %d signals", usr1, usr2);
}

static char *cold_memory;
static size_t cold_size;

static void make_cold(int sig)
{
	int saved = errno;

	count(sig);
	check_pages(cold_memory, 0, cold_size / PAGE, 1, "in a handler");
	if (pwrite(handler_fd, cold_memory, PAGE, 0) != (ssize_t)PAGE)
		die("in a handler: %s", strerror(errno));
	check_pages(cold_memory, 0, cold_size / PAGE, 1, "in a handler");
	errno = saved;
}

struct waiter {
	pthread_t main;
	int fd;
	pid_t pid;
};

static void *disturb(void *arg)
{
	struct waiter *w = arg;
	char page[PAGE];

	for (unsigned i = 0; i < 8; i++) {
		usleep(20000);
		pthread_kill(w->main, SIGUSR1);
		usleep(60000);
		page_fill(page, 1, 2, SEED);
		CHECK(write(w->fd, page, PAGE) == (ssize_t)PAGE, "pipe");
	}
	return NULL;
}

static char *begun_in;
static size_t begun_step;

static void *begin_again(void *disarmed)
{
	struct sigaction sa = {.sa_handler = make_cold, .sa_flags = SA_RESTART | SA_ONSTACK};
	char *p = begun_in;
	size_t step = begun_step;
	struct waiter w = {.main = pthread_self()};
	int fds[2];
	pthread_t t;

	if (disarmed) {
		stack_t stack = {
			.ss_sp = SYS(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0)),
			.ss_size = 1 << 20,
			.ss_flags = (int)(1u << 31) /* SS_AUTODISARM */,
		};
		SYS(sigaltstack(&stack, NULL));
	}
	usr1 = 0;
	SYS(pipe(fds));
	w.fd = fds[1];
	SYS(sigaction(SIGUSR1, &sa, NULL));
	CHECK(!pthread_create(&t, NULL, disturb, &w), "thread");
	for (unsigned i = 0; i < 8; i++) {
		char *to = cold_at(p, (i + 1) * step);
		struct iovec *v = cold_at(p, (i + 1) * step + 1);
		*v = (struct iovec){to, PAGE};
		struct pollfd *fd = cold_at(p, (i + 1) * step + 2);
		*fd = (struct pollfd){fds[0], POLLIN, 0};
		while (i % 2 && poll(fd, 1, 10000) != 1)
			CHECK(errno == EINTR, "%s", strerror(errno));
		CHECK(SYS(i % 4 < 2 ? read(fds[0], to, PAGE) : readv(fds[0], v, 1)) == (ssize_t)PAGE, "short");
		page_check(to, 1, 2, SEED, "begun again");
	}
	pthread_join(t, NULL);
	CHECK(usr1 > 0, "no handler ran");
	return NULL;
}

/* Calls that are begun again after a handler that has used so much that all else has got cold. */
static void row_restarts(size_t size)
{
	char *p = filled(size);
	size_t step = size / PAGE / 16;
	int stopped = 0, status;
	pthread_attr_t attr;
	pthread_t t;

	cold_size = 48u << 20;
	cold_memory = filled(cold_size);
	handler_fd = SYS(temp_file(O_RDWR));
	begun_in = p;
	begun_step = step;
	begin_again(NULL);
	/* In a thread whose stack lies below that of its handlers. */
	void *stack = SYS(mmap((void *)0x10000000, 1 << 20, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0));
	pthread_attr_init(&attr);
	CHECK(!pthread_attr_setstack(&attr, stack, 1 << 20), "stack");
	CHECK(!pthread_create(&t, &attr, begin_again, p), "thread");
	pthread_join(t, NULL);
	/* Stopped, and on again: what is left of the time is in memory that is cold. */
	pid_t me = getpid(), pid = SYS(fork());
	if (!pid) {
		for (unsigned i = 0; i < 3; i++) {
			usleep(50000);
			kill(me, SIGSTOP);
			usleep(50000);
			kill(me, SIGCONT);
		}
		_exit(0);
	}
	struct timespec *left_of = cold_at(p, 12 * step), begin, end;
	*left_of = (struct timespec){0, 500000000};
	chill(size);
	SYS(clock_gettime(CLOCK_MONOTONIC, &begin));
	while (syscall(SYS_nanosleep, left_of, left_of)) {
		CHECK(errno == EINTR, "nanosleep: %s", strerror(errno));
		stopped++;
	}
	SYS(clock_gettime(CLOCK_MONOTONIC, &end));
	CHECK((end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000 >= 499,
	      "slept too short, %d times interrupted", stopped);
	SYS(waitpid(pid, &status, 0));
	check_pages(p, 13 * step, size / PAGE, 1, "after that");
}

enum { LEVELS = 20 };
static int nested_fds[LEVELS + 1][2];
static char *nested_memory;
static size_t nested_step;
static atomic_int level;

/* A short one, and one that is made in pieces, turn about. */
static void read_nested(int i)
{
	char *to = nested_memory + (size_t)i * nested_step;
	ssize_t n;

	do
		n = read(nested_fds[i][0], to, i % 2 ? 3u << 19 : PAGE);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)PAGE)
		die("level %d: %zd, %s", i, n, strerror(errno));
	page_check(to, (uint64_t)i, 3, SEED, "read in a handler");
}

static void on_nested(int sig)
{
	int saved = errno;

	(void)sig;
	read_nested(atomic_fetch_add(&level, 1) + 1);
	errno = saved;
}

static void *nest(void *arg)
{
	char page[PAGE];

	for (int i = 0; i < LEVELS; i++) {
		usleep(30000);
		pthread_kill(*(pthread_t *)arg, SIGUSR2);
		while (atomic_load(&level) <= i)
			usleep(1000);
	}
	usleep(30000);
	for (int i = LEVELS; i >= 0; i--) {
		page_fill(page, (uint64_t)i, 3, SEED);
		CHECK(write(nested_fds[i][1], page, PAGE) == (ssize_t)PAGE, "pipe");
	}
	return NULL;
}

/* Handlers that interrupt one another, each in a call of its own. */
static void row_nested(size_t size)
{
	struct sigaction sa = {.sa_handler = on_nested, .sa_flags = SA_NODEFER};
	pthread_t me = pthread_self(), t;

	nested_memory = filled(size);
	nested_step = size / PAGE / (LEVELS + 4) * PAGE;
	for (int i = 0; i <= LEVELS; i++)
		SYS(pipe(nested_fds[i]));
	SYS(sigaction(SIGUSR2, &sa, NULL));
	CHECK(!pthread_create(&t, NULL, nest, &me), "thread");
	read_nested(0);
	pthread_join(t, NULL);
	check_pages(nested_memory, (LEVELS + 1) * nested_step / PAGE, size / PAGE, 1, "after that");
}

/* --- registers --- */

#ifdef __x86_64__
struct six {
	long nr, arg[6], after[6];
};

static long raw(struct six *s)
{
	long r;
	register long r10 __asm__("r10") = s->arg[3];
	register long r8 __asm__("r8") = s->arg[4];
	register long r9 __asm__("r9") = s->arg[5];
	long di = s->arg[0], si = s->arg[1], dx = s->arg[2];

	__asm__ volatile("syscall"
			 : "=a"(r), "+D"(di), "+S"(si), "+d"(dx), "+r"(r10), "+r"(r8), "+r"(r9)
			 : "0"(s->nr)
			 : "rcx", "r11", "memory");
	s->after[0] = di;
	s->after[1] = si;
	s->after[2] = dx;
	s->after[3] = r10;
	s->after[4] = r8;
	s->after[5] = r9;
	return r;
}

static void keeps(long nr, long a, long b, long c, long d, long e, long f, long want)
{
	struct six s = {.nr = nr, .arg = {a, b, c, d, e, f}};
	long r = raw(&s);

	CHECK(r == want, "call %ld: %ld instead of %ld", nr, r, want);
	for (unsigned i = 0; i < 6; i++)
		CHECK(s.after[i] == s.arg[i], "call %ld: argument %u is %lx after it, was %lx", nr, i,
		      s.after[i], s.arg[i]);
}

/* A system call leaves its arguments in their registers. */
static void row_registers(size_t size)
{
	enum { N = 9 };
	char *p = filled(size);
	size_t step = size / PAGE / N;
	int ep = SYS(epoll_create1(0)), null = SYS(open("/dev/null", O_RDWR));

	for (unsigned cold = 0; cold < 2; cold++) {
		static struct {
			uint64_t all, ign[4], old[4];
			stack_t stack;
			struct timespec soon;
			struct {
				void *mask;
				size_t len;
			} with;
			struct pollfd fd;
			struct epoll_event event;
			char stack_memory[65536] __attribute__((aligned(16)));
		} here;
		__typeof__(here) *s = cold ? (void *)(p + step * PAGE) : &here;
		memset(s, 0, sizeof(*s));
		s->all = ~0ull;
		s->ign[0] = 1;
		s->ign[3] = ~0ull;
		s->soon = (struct timespec){0, 1000};
		s->with.mask = &s->all;
		s->with.len = 8;
		s->fd = (struct pollfd){-1, 0, 0};
		s->stack = (stack_t){.ss_sp = s->stack_memory, .ss_size = sizeof(s->stack_memory)};
		if (cold)
			chill(size);
		keeps(SYS_rt_sigaction, SIGUSR2, (long)s->ign, (long)s->old, 8, 77, 88, 0);
		keeps(SYS_rt_sigaction, SIGBUS, 0, (long)s->old, 8, 77, 88, 0);
		keeps(SYS_rt_sigprocmask, SIG_BLOCK, (long)&s->all, (long)s->old, 8, 77, 88, 0);
		s->all = 0;
		keeps(SYS_rt_sigprocmask, SIG_SETMASK, (long)&s->all, 0, 8, 77, 88, 0);
		s->all = ~0ull;
		if (cold)
			chill(size);
		keeps(SYS_ppoll, (long)&s->fd, 1, (long)&s->soon, (long)&s->all, 8, 88, 0);
		keeps(SYS_pselect6, 0, 0, 0, 0, (long)&s->soon, (long)&s->with, 0);
		keeps(SYS_epoll_pwait, ep, (long)&s->event, 1, 1, (long)&s->all, 8, 0);
		if (cold)
			chill(size);
		keeps(SYS_sigaltstack, 0, (long)s->old, 66, 67, 68, 69, 0);
		keeps(SYS_sigaltstack, (long)&s->stack, (long)s->old, 66, 67, 68, 69, 0);
		s->stack.ss_flags = SS_DISABLE;
		keeps(SYS_sigaltstack, (long)&s->stack, 0, 66, 67, 68, 69, 0);
		keeps(SYS_write, null, (long)p, 1000, 66, 67, 68, 1000);
		keeps(SYS_write, null, (long)p, (long)size, 66, 67, 68, (long)size);
		keeps(SYS_getpid, 61, 62, 63, 64, 65, 66, getpid());
		keeps(SYS_mincore, (long)p, (long)size, 0, 64, 65, 66, -EFAULT);
	}
	/* What is left at its page is the row's, not filled's. */
	check_pages(p, 2 * step + 32, size / PAGE, 1, "after that");
}

/* The other way into the kernel, with numbers of its own. */
static void row_int80(size_t size)
{
	char *p = filled(size);
	pid_t pid = SYS(fork());
	int status;

	if (!pid) {
		int r = 20; /* getpid */
		__asm__ volatile("int $0x80" : "+a"(r) : "b"(0), "c"(0), "d"(0) : "r8", "r9", "r10", "r11", "memory");
		_exit(r == getpid() ? 0 : r == -ENOSYS ? 77 : 1);
	}
	SYS(waitpid(pid, &status, 0));
	if (WIFSIGNALED(status) || WEXITSTATUS(status) == 77)
		skip("the kernel has no calls of 32 bits");
	CHECK(!status, "another call was made");
	check_pages(p, 0, size / PAGE, 1, "after that");
}

/* --- children --- */

/* Handlers that are reset in the child, a structure that is larger than known, and one that is too
 * large.
 */
static void row_clone3(size_t size)
{
	char *p = filled(size);
	struct {
		struct clone_args a;
		uint64_t more[4];
	} *c = (void *)(p + size / 2);

	for (unsigned i = 0; i < 4; i++) {
		memset(c, 0, sizeof(*c));
		c->a.flags = i % 2 ? CLONE_CLEAR_SIGHAND : 0;
		c->a.exit_signal = SIGCHLD;
		chill(size);
		struct six s = {.nr = SYS_clone3, .arg = {(long)c, i < 2 ? sizeof(c->a) : sizeof(*c)}};
		pid_t me = getpid(), pid = (pid_t)raw(&s);
		if (!pid) {
			struct six parent = {.nr = SYS_getppid}, leave = {.nr = SYS_exit_group};
			leave.arg[0] = raw(&parent) == me ? 0 : 1;
			raw(&leave);
		}
		if (pid == -EINVAL && i % 2)
			skip("no CLONE_CLEAR_SIGHAND");
		CHECK(pid > 0, "clone3 %u: %d", i, pid);
		expect_child(pid, "a child of clone3");
	}
	memset(c, 0, sizeof(*c));
	c->more[1] = 1;
	struct six s = {.nr = SYS_clone3, .arg = {(long)c, sizeof(*c)}};
	CHECK(raw(&s) == -E2BIG, "more than the kernel knows");
	check_pages(p, 0, size / 2 / PAGE, 1, "after that");
}
#endif

/* The child uses its parent's thread-local memory, and leaves it in the middle of calls. */
static void row_vfork(size_t size)
{
	char *p = filled(size), **argv = (char **)p, **envp = (char **)(p + size / 4);
	char *text = p + size / 2;
	unsigned rounds = 60;

	for (unsigned i = 0; i < rounds; i++) {
		argv[0] = text;
		argv[1] = NULL;
		envp[0] = text + PAGE;
		envp[1] = NULL;
		strcpy(text, "/bin/true");
		strcpy(text + PAGE, "EMFATIER_DISABLE=1");
		if (i % 16 == 0)
			chill(size);
		pid_t pid = vfork();
		if (!pid) {
			/* One in another. */
			if (i % 2) {
				pid_t inner = vfork();
				if (!inner)
					_exit(3);
				int status = 0;
				waitpid(inner, &status, 0);
				if (status != 3 << 8)
					_exit(4);
			}
			if (i % 3)
				execve(text, argv, envp);
			_exit(0);
		}
		expect_child(SYS(pid), "a child of vfork");
	}
	chill(size);
	check_pages(p, size / 4 * 3 / PAGE, size / PAGE, 1, "after that");
}

/* --- long messages --- */

/* Packets stay whole, or are refused. */
static void row_packets(size_t size)
{
	const size_t len = 3u << 19;
	char *p = filled(size), *q = map_anon(2 * len);
	int sv[2], room = 8 << 20;
	struct iovec v[2] = {{p, 64 << 10}, {p + (64 << 10), len - (64 << 10)}};

	SYS(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv));
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	for (unsigned way = 0; way < 3; way++) {
		ssize_t n = way == 0   ? write(sv[0], p, len)
			    : way == 1 ? writev(sv[0], v, 2)
				       : sendto(sv[0], p, len, 0, NULL, 0);
		if (n < 0) {
			CHECK(errno == EMSGSIZE, "%s", strerror(errno));
			CHECK(recv(sv[1], q, 2 * len, MSG_DONTWAIT) < 0 && errno == EAGAIN,
			      "a part of it was sent");
			continue;
		}
		CHECK(n == (ssize_t)len, "%zd", n);
		memset(q, 0, len);
		CHECK(SYS(recv(sv[1], q, 2 * len, 0)) == (ssize_t)len, "not one packet");
		check_pages(q, 0, len / PAGE, 1, "a packet");
	}
	check_pages(p, 0, size / PAGE, 1, "after that");
}

struct sender {
	int fd;
	char *p;
	size_t len;
};

static void *send_all(void *arg)
{
	struct sender *s = arg;

	for (size_t at = 0; at < s->len;)
		at += (size_t)SYS(write(s->fd, s->p + at, s->len - at));
	return NULL;
}

/* What was looked at only comes once more. */
static void row_peek(size_t size)
{
	const size_t len = 2u << 20;
	char *p = filled(size), *q = map_anon(len);
	struct sender s = {.p = p, .len = len};
	int sv[2], room = 16 << 20;
	pthread_t t;

	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	s.fd = sv[0];
	CHECK(!pthread_create(&t, NULL, send_all, &s), "thread");
	while (recv(sv[1], q, len, MSG_PEEK) < 128 << 10)
		usleep(1000);
	usleep(20000);
	ssize_t n = SYS(recv(sv[1], q, len, MSG_PEEK | MSG_DONTWAIT | MSG_WAITALL));
	check_pages(q, 0, (size_t)n / PAGE, 1, "peeked at");
	for (size_t at = 0; at < len;)
		at += (size_t)SYS(recv(sv[1], q + at, len - at, 0));
	check_pages(q, 0, len / PAGE, 1, "received");
	pthread_join(t, NULL);
	check_pages(p, 0, size / PAGE, 1, "after that");
}

static void *send_messages(void *arg)
{
	struct sender *s = arg;

	for (size_t at = 0; at < s->len;) {
		/* Many parts, one of them long, and a descriptor beside. */
		struct iovec v[80];
		size_t k = 0, len = s->len - at < (24u << 20) ? s->len - at : 24u << 20;
		union {
			struct cmsghdr h;
			char room[CMSG_SPACE(sizeof(int))];
		} c;
		for (size_t off = 0; off < len && k < 80; k++) {
			size_t part = k < 79 && len - off > 10000 ? 10000 : len - off;
			v[k] = (struct iovec){s->p + at + off, part};
			off += part;
		}
		struct msghdr m = {
			.msg_iov = v,
			.msg_iovlen = k,
			.msg_control = &c,
			.msg_controllen = sizeof(c),
		};
		c.h = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&c.h), &s->fd, sizeof(int));
		size_t n = (size_t)SYS(sendmsg(s->fd, &m, 0));
		CHECK(n == len, "a blocking sendmsg sent %zu of %zu", n, len);
		at += n;
	}
	return NULL;
}

/* Messages that are longer than the budget: sent whole, and received with what came beside. */
static void row_messages(size_t size)
{
	char *from = filled(size / 2), *to = filled(size / 2);
	struct sender s = {.p = from, .len = size / 2};
	unsigned beside = 0;
	pthread_t t;
	int sv[2];

	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	s.fd = sv[0];
	memset(to, 0xaa, size / 2);
	CHECK(!pthread_create(&t, NULL, send_messages, &s), "thread");
	for (size_t at = 0; at < size / 2;) {
		char control[256] __attribute__((aligned(8)));
		struct iovec v[2] = {{to + at, size / 4 < size / 2 - at ? size / 4 : size / 2 - at}, {0}};
		struct msghdr m = {
			.msg_iov = v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = 256};
		if (v[0].iov_len < size / 2 - at) {
			v[1] = (struct iovec){to + at + v[0].iov_len, size / 2 - at - v[0].iov_len};
			m.msg_iovlen = 2;
		}
		ssize_t n = SYS(recvmsg(sv[1], &m, MSG_WAITALL));
		CHECK(n > 0, "closed");
		struct cmsghdr *h = m.msg_controllen ? CMSG_FIRSTHDR(&m) : NULL;
		if (h) {
			int fd;
			CHECK(h->cmsg_type == SCM_RIGHTS && m.msg_controllen < 256, "beside it");
			memcpy(&fd, CMSG_DATA(h), sizeof(fd));
			SYS(close(fd));
			beside++;
		}
		at += (size_t)n;
	}
	pthread_join(t, NULL);
	CHECK(beside == (size / 2 + (24u << 20) - 1) / (24u << 20), "%u descriptors came", beside);
	check_pages(to, 0, size / 2 / PAGE, 1, "received");
}

/* --- what calls use --- */

/* A structure that ends where the memory does. */
static void row_at_the_end(size_t size)
{
	enum { N = 32 };
	const size_t len = size / N / PAGE * PAGE;
	char *p = filled(size), *hole;

	/* Unmapped between them. */
	for (unsigned i = 1; i <= N; i++)
		SYS(munmap(p + i * len - PAGE, PAGE));
	for (unsigned round = 0; round < 6; round++) {
		for (unsigned i = 1; i <= N; i++) {
			struct stat *st = (struct stat *)(p + i * len - PAGE) - 1;
			SYS(syscall(SYS_newfstatat, AT_FDCWD, "/dev/null", st, 0));
			CHECK(S_ISCHR(st->st_mode), "stat");
			/* More than there is, into which what comes fits. */
			hole = p + i * len - PAGE - 64;
			CHECK(SYS(syscall(SYS_readlink, "/dev/stdin", hole, 9000)) > 0, "readlink");
		}
		chill(size);
	}
	for (unsigned i = 0; i < N; i++)
		check_pages(p, i * len / PAGE, (i + 1) * len / PAGE - 2, 1, "after that");
}

/* Messages, sets and arrays that are longer than a page, and what structures point to. */
static void row_long_ones(size_t size)
{
	char *p = filled(size);
	size_t n = size / PAGE, step = n / 16;
	const size_t len = 8000;

	int q = msgget(IPC_PRIVATE, 0600);
	if (q >= 0) {
		/* The last of it is on a page of its own. */
		char *m = p + step * PAGE - 8 - len + 4, *to = p + 2 * step * PAGE - 8 - len + 4;
		for (unsigned i = 0; i < 4; i++) {
			memset(m + 8, 0x33, len);
			*(long *)(void *)m = 5;
			chill(size);
			int r = msgsnd(q, m, len, IPC_NOWAIT);
			CHECK(!r, "msgsnd: %s", strerror(errno));
			ssize_t got = msgrcv(q, to, len, 5, IPC_NOWAIT);
			CHECK(got == (ssize_t)len, "msgrcv: %s", strerror(errno));
			CHECK(!memcmp(m + 8, to + 8, len), "another message");
		}
		msgctl(q, IPC_RMID, NULL);
	}
	int s = semget(IPC_PRIVATE, 8000, 0600);
	if (s >= 0) {
		unsigned short *a = (void *)(p + 3 * step * PAGE);
		memset(a, 0, 16000);
		a[7999] = 7;
		chill(size);
		int r = semctl(s, 0, SETALL, a);
		CHECK(!r, "SETALL: %s", strerror(errno));
		a[7999] = 0;
		chill(size);
		r = semctl(s, 0, GETALL, a);
		CHECK(!r && a[7999] == 7, "GETALL: %s", strerror(errno));
		semctl(s, 0, IPC_RMID);
	}
	for (unsigned i = 0; i < 8; i++) {
		/* A byte a page of other memory: longer than one page. */
		char *vec = p + 4 * step * PAGE, *other = p + 6 * step * PAGE;
		size_t pages = 10000 < n - 6 * step ? 10000 : n - 6 * step;
		CHECK(pages > 8200, "too small");
		chill(size);
		SYS(syscall(SYS_mincore, other, pages * PAGE, vec));
	}
#ifdef __x86_64__
	chill(size);
	unsigned long *fs = cold_at(p, 5 * step);
	SYS(syscall(SYS_arch_prctl, 0x1003 /* ARCH_GET_FS */, fs));
	CHECK(*fs == (unsigned long)pthread_self(), "ARCH_GET_FS");
#endif
	chill(size);
	char *name = cold_at(p, 8 * step);
	SYS(prctl(PR_GET_NAME, name, 0, 0, 0));
	CHECK(!strcmp(name, "guarded"), "PR_GET_NAME");
	chill(size);
	int node = -1;
	long r = syscall(SYS_get_mempolicy, &node, NULL, 0, cold_at(p, 6 * step), 3 /* NODE | ADDR */);
	CHECK(!r || errno == ENOSYS || errno == EPERM, "get_mempolicy: %s", strerror(errno));
	chill(size);
	r = syscall(SYS_mlock, cold_at(p, 7 * step), 4 * PAGE);
	CHECK(!r || errno == EPERM || errno == EAGAIN, "mlock: %s", strerror(errno));
	page_check(cold_at(p, 7 * step), 7 * step, 1, SEED, "locked");
	SYS(syscall(SYS_munlock, cold_at(p, 7 * step), 4 * PAGE));
}

#include <linux/filter.h>
#include <linux/seccomp.h>

/* Programs for a filter that are cold. */
static void row_filters(size_t size)
{
	char *p = filled(size);
	size_t step = size / PAGE / 4;
	int sv[2];

	for (unsigned way = 0; way < 3; way++) {
		struct sock_filter *f = (void *)(p + way * step * PAGE);
		struct sock_fprog *prog = (void *)(p + (way * step + step / 2) * PAGE);
		f[0] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, way ? SECCOMP_RET_ALLOW : 0xffff);
		*prog = (struct sock_fprog){1, f};
		chill(size);
		pid_t pid = SYS(fork());
		if (!pid) {
			if (way == 0) {
				SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv));
				SYS(setsockopt(sv[0], SOL_SOCKET, SO_ATTACH_FILTER, prog, sizeof(*prog)));
			} else if (way == 1) {
				SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
				SYS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, prog));
			} else {
				SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
				SYS(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, prog));
			}
			_exit(0);
		}
		expect_child(pid, "who has a filter");
	}
	check_pages(p, 3 * step, size / PAGE, 1, "after that");
}

/* Who dispatches system calls itself is told that it can't, and one who ends that has not begun. */
static void row_dispatch(size_t size)
{
	char *p = filled(size);
	int fd = SYS(temp_file(O_RDWR));

	int r = prctl(PR_SET_SYSCALL_USER_DISPATCH, 0, 0, 0, 0);
	CHECK(!r || errno == EINVAL, "%s", strerror(errno));
	for (size_t i = 0; i < size / PAGE; i += 32)
		SYS(pwrite(fd, p + i * PAGE, PAGE, (off_t)(i * PAGE)));
	check_pages(p, 0, size / PAGE, 1, "after that");
}

/* --- cancellation --- */

static atomic_int cleaned;

static void clean_up(void *unused)
{
	(void)unused;
	atomic_fetch_add(&cleaned, 1);
}

struct reader {
	int fd;
	char *p;
	size_t len;
};

static void *read_for_ever(void *arg)
{
	struct reader *r = arg;

	pthread_cleanup_push(clean_up, NULL);
	for (;;)
		if (read(r->fd, r->p, r->len) < 0)
			die("read: %s", strerror(errno));
	pthread_cleanup_pop(0);
	return NULL;
}

/* In calls that use cold memory, short and long. */
static void row_cancel(size_t size)
{
	char *p = filled(size);
	int fds[2];

	SYS(pipe(fds));
	for (unsigned i = 0; i < 40; i++) {
		struct reader r = {fds[0], p + i * (size / 64), i % 2 ? PAGE : 3u << 19};
		pthread_t t;
		void *result;
		CHECK(!pthread_create(&t, NULL, read_for_ever, &r), "thread");
		if (i % 4 < 2)
			usleep(2000);
		pthread_cancel(t);
		pthread_join(t, &result);
		CHECK(result == PTHREAD_CANCELED, "not cancelled");
		CHECK(atomic_load(&cleaned) == (int)i + 1, "%d cleaned up of %u", cleaned, i + 1);
	}
	check_pages(p, 0, size / PAGE, 1, "after that");
}

#ifdef __x86_64__
/* As libc's: from here to there nothing has been read. */
extern const char read_begins[], read_ends[];

static ssize_t read_between(int fd, void *p, size_t n)
{
	ssize_t r;

	__asm__ volatile(".globl read_begins, read_ends\n"
			 "read_begins:\n	syscall\nread_ends:\n"
			 : "=a"(r)
			 : "0"(SYS_read), "D"(fd), "S"(p), "d"(n)
			 : "rcx", "r11", "memory");
	return r;
}

static __thread sigjmp_buf reading;
static atomic_int came, came_between;

/* Libc's number, but not its handler: it is made as from glibc 2.41 on. */
static void on_32(int sig, siginfo_t *info, void *context)
{
	const char *at = (const char *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

	(void)sig;
	(void)info;
	atomic_fetch_add(&came, 1);
	if (at < read_begins || at >= read_ends)
		return;
	atomic_fetch_add(&came_between, 1);
	siglongjmp(reading, 1);
}

static _Atomic pid_t reader_tid;

static void *read_once(void *arg)
{
	struct reader *r = arg;

	atomic_store(&reader_tid, (pid_t)syscall(SYS_gettid));
	if (!sigsetjmp(reading, 1))
		read_between(r->fd, r->p, r->len);
	return NULL;
}

/* Whoever looks where a thread waits finds it at its call. */
static void row_where_it_waits(size_t size)
{
	struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} sa, was;
	struct sigaction set = {.sa_sigaction = on_32, .sa_flags = SA_SIGINFO | SA_RESTART};
	char *p = filled(size);
	int fds[2];

	/* With libc's restorer, under a number that libc itself refuses. */
	SYS(sigaction(SIGUSR2, &set, NULL));
	SYS(syscall(SYS_rt_sigaction, SIGUSR2, NULL, &sa, 8));
	SYS(syscall(SYS_rt_sigaction, 32, &sa, NULL, 8));
	SYS(syscall(SYS_rt_sigaction, 32, NULL, &was, 8));
	CHECK(was.handler == (void *)on_32, "another handler");
	SYS(pipe(fds));
	for (unsigned i = 0; i < 20; i++) {
		struct reader r = {fds[0], p + i * (size / 32), i % 2 ? PAGE : 3u << 19};
		pthread_t t;
		atomic_store(&reader_tid, 0);
		CHECK(!pthread_create(&t, NULL, read_once, &r), "thread");
		while (!atomic_load(&reader_tid))
			usleep(100);
		usleep(20000);
		int before = atomic_load(&came);
		SYS(syscall(SYS_tgkill, getpid(), atomic_load(&reader_tid), 32));
		while (atomic_load(&came) == before)
			usleep(100);
		usleep(1000);
		if (atomic_load(&came_between) <= (int)i)
			die("it waits elsewhere");
		pthread_join(t, NULL);
	}
	check_pages(p, 0, size / PAGE, 1, "after that");
}
#endif

static const struct row rows[] = {
	{"bad-pointers", row_bad_pointers, true},
	{"exec-mask", row_exec_mask, true},
	{"errno", row_errno, true},
	{"populate-alarms", row_populate_alarms, true},
	{"calls-in-handlers", row_calls_in_handlers, true},
	{"small-stack", row_small_stack, true},
	{"spawn-in-handler", row_spawn_in_handler, true},
	{"bus-longjmp", row_bus_longjmp, true},
	{"left", row_left, true},
	{"waiting-masks", row_waiting_masks, true},
	{"restarts", row_restarts, true},
	{"nested", row_nested, true},
#ifdef __x86_64__
	{"registers", row_registers, true},
	{"int80", row_int80, true},
	{"clone3", row_clone3, true},
#endif
	{"vfork", row_vfork, true},
	{"packets", row_packets, true},
	{"peek", row_peek, true},
	{"messages", row_messages, true},
	{"at-the-end", row_at_the_end, true},
	{"long-ones", row_long_ones, true},
	{"filters", row_filters, true},
	{"dispatch", row_dispatch, true},
	{"cancel", row_cancel, true},
#ifdef __x86_64__
	{"where-it-waits", row_where_it_waits, true},
#endif
};

ROWS_MAIN(rows)
