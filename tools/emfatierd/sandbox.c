/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* setresuid, setgroups */
#include "sandbox.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

static int refuse(char *err, size_t errlen, const char *what, int rc)
{
	snprintf(err, errlen, "%s: %s", what, strerror(-rc));
	return rc;
}

static void raise_limit(__rlimit_resource_t which, rlim_t to)
{
	struct rlimit l = { .rlim_cur = to, .rlim_max = to };

	if (!setrlimit(which, &l) || getrlimit(which, &l))
		return;
	l.rlim_cur = l.rlim_max;
	(void)setrlimit(which, &l);
}

void sandbox_limits(void)
{
	raise_limit(RLIMIT_MEMLOCK, RLIM_INFINITY);
	raise_limit(RLIMIT_NOFILE, 4096);
	/* A core file would hold the secret, and what clients have stored. */
	raise_limit(RLIMIT_CORE, 0);
	(void)prctl(PR_SET_DUMPABLE, 0);
}

const char *sandbox_refuses(const char *user)
{
	const struct passwd *pw = geteuid() ? NULL : getpwnam(user);

	return geteuid()     ? NULL
	       : !pw	     ? "there is no such user"
	       : !pw->pw_uid ? "must not be root"
			     : NULL;
}

int sandbox_drop(const char *user, char *err, size_t errlen)
{
	if (!geteuid()) {
		const struct passwd *pw = getpwnam(user);

		if (!pw || !pw->pw_uid)
			return refuse(err, errlen, "--user", -EINVAL);
		for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
			(void)prctl(PR_CAPBSET_DROP, cap);
		/* From root to another user the kernel clears the rest of the capabilities. */
		if (setgroups(0, NULL) || setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) ||
		    setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid))
			return refuse(err, errlen, "cannot become another user", -errno);
		(void)prctl(PR_SET_DUMPABLE, 0);
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return refuse(err, errlen, "cannot give up privileges", -errno);
	return 0;
}

int sandbox_seal(char *err, size_t errlen)
{
	/* Of libc, of the verbs (their devices are open by now), and of the metrics' server. */
	static const int allowed[] = {
		SCMP_SYS(read),
		SCMP_SYS(write),
		SCMP_SYS(writev),
		SCMP_SYS(close),
		SCMP_SYS(lseek),
		SCMP_SYS(fstat),
		SCMP_SYS(newfstatat),
		SCMP_SYS(ioctl),
		SCMP_SYS(fcntl),
		SCMP_SYS(poll),
		SCMP_SYS(ppoll),
		SCMP_SYS(epoll_create1),
		SCMP_SYS(epoll_ctl),
		SCMP_SYS(epoll_wait),
		SCMP_SYS(epoll_pwait),
		SCMP_SYS(eventfd2),
		SCMP_SYS(mmap),
		SCMP_SYS(munmap),
		SCMP_SYS(mremap),
		SCMP_SYS(mprotect),
		SCMP_SYS(madvise),
		SCMP_SYS(brk),
		SCMP_SYS(futex),
		SCMP_SYS(sched_yield),
		SCMP_SYS(clock_gettime),
		SCMP_SYS(clock_nanosleep),
		SCMP_SYS(nanosleep),
		SCMP_SYS(gettimeofday),
		SCMP_SYS(getrandom),
		SCMP_SYS(getpid),
		SCMP_SYS(gettid),
		SCMP_SYS(rt_sigprocmask),
		SCMP_SYS(rt_sigaction),
		SCMP_SYS(rt_sigreturn),
		SCMP_SYS(restart_syscall),
		SCMP_SYS(exit),
		SCMP_SYS(exit_group),
		SCMP_SYS(accept4),
		SCMP_SYS(recvfrom),
		SCMP_SYS(recvmsg),
		SCMP_SYS(sendto),
		SCMP_SYS(sendmsg),
		SCMP_SYS(shutdown),
		SCMP_SYS(setsockopt),
		SCMP_SYS(getsockopt),
		SCMP_SYS(getsockname),
		SCMP_SYS(getpeername),
	};
	/* Libraries cope with a call that fails; a server that is killed loses what it holds. */
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int rc = ctx ? 0 : -ENOMEM;

	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]) && !rc; i++)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
	if (!rc)
		rc = seccomp_load(ctx);
	if (ctx)
		seccomp_release(ctx);
	return rc ? refuse(err, errlen, "cannot restrict system calls", rc) : 0;
}
