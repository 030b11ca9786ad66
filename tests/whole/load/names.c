/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names: a program that exports functions of its own by the names of libc's. Nobody else calls
 * them: libc does not, so neither may what is preloaded, also where memory is far and in a child.
 */
#define _GNU_SOURCE
#include "prog.h"

#include <sys/wait.h>

#define SIZE (48ul << 20)

ssize_t __write(int fd, const void *buf, size_t len); /* libc's, by its other name */

#define OWN(name)                                                                           \
	void program_##name(void) __asm__(#name);                                           \
	void program_##name(void)                                                           \
	{                                                                                   \
		(void)!__write(2, #name " was called\n", sizeof(#name " was called\n") - 1); \
		_exit(3);                                                                   \
	}
OWN(access)
OWN(eventfd)
OWN(fcntl)
OWN(fstat)
OWN(ftruncate)
OWN(ioctl)
OWN(lseek)
OWN(lstat)
OWN(memfd_create)
OWN(mkdir)
OWN(nanosleep)
OWN(open)
OWN(poll)
OWN(prctl)
OWN(pread)
OWN(pwrite)
OWN(read)
OWN(recvmsg)
OWN(sched_yield)
OWN(sendmsg)
OWN(socketpair)
OWN(stat)
OWN(timerfd_settime)
OWN(unlink)
OWN(write)

static void check(const char *p)
{
	for (size_t i = 0; i < SIZE; i += PAGE)
		CHECK(p[i] == (char)(i / PAGE) && p[i + PAGE - 1] == (char)(i / PAGE), "page %zu", i / PAGE);
}

int main(void)
{
	char *p = SYS(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	int status;

	for (size_t i = 0; i < SIZE; i += PAGE)
		memset(p + i, (int)(i / PAGE), PAGE);
	check(p);
	pid_t child = SYS(fork());
	if (!child) {
		check(p);
		_exit(0);
	}
	check(p);
	SYS(waitpid(child, &status, 0));
	CHECK(!status, "the child's status is %x", (unsigned)status);
	puts("right");
	return 0;
}
