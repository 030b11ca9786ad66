/* SPDX-License-Identifier: Apache-2.0 */
/* Which memory a system call reads and writes. Of a call that is not in the table: see else_any. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/aio_abi.h>
#undef BLOCK_SIZE
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "engine.h"
#include "kernel.h"
#include "log.h"
#include "region.h"
#include "sigfault.h"
#include "trap.h"

#ifdef __x86_64__

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

#define SOME 4096u	  /* what a structure, or a name, has at most */
#define STRING 131072u	  /* an argument of execve */
#define PIECE (1ul << 20) /* that one call transfers of managed memory at a time */

/*
 * Rab: reads what argument a points to, b bytes; Wab: writes. Eabx: the same of b elements of x
 * bytes, a = 1 ... z = 26, A = 27. Sa: some structure or string. Vab, Uab: a vector of b parts,
 * each read, written. Ma, Na: a message that is sent, received; mab, nab: b of them. Aa: strings up
 * to a NULL. Empty: its arguments are addresses, but no memory is used there.
 */
static const char *const table[] = {
	[SYS_read] = "W12",
	[SYS_write] = "R12",
	[SYS_pread64] = "W12",
	[SYS_pwrite64] = "R12",
	[SYS_readv] = "U12",
	[SYS_writev] = "V12",
	[SYS_preadv] = "U12",
	[SYS_pwritev] = "V12",
	[SYS_preadv2] = "U12",
	[SYS_pwritev2] = "V12",
	[SYS_vmsplice] = "V12",
	[SYS_sendto] = "R12R45",
	[SYS_recvfrom] = "W12S4S5",
	[SYS_sendmsg] = "M1",
	[SYS_recvmsg] = "N1",
	[SYS_sendmmsg] = "m12",
	[SYS_recvmmsg] = "n12S4",
	[SYS_setsockopt] = "R34",
	[SYS_getdents] = "W12",
	[SYS_getdents64] = "W12",
	[SYS_getcwd] = "W01",
	[SYS_readlink] = "S0W12",
	[SYS_readlinkat] = "S1W23",
	[SYS_setxattr] = "S0S1R23",
	[SYS_lsetxattr] = "S0S1R23",
	[SYS_fsetxattr] = "S1R23",
	[SYS_getxattr] = "S0S1W23",
	[SYS_lgetxattr] = "S0S1W23",
	[SYS_fgetxattr] = "S1W23",
	[SYS_listxattr] = "S0W12",
	[SYS_llistxattr] = "S0W12",
	[SYS_flistxattr] = "W12",
	[SYS_getrandom] = "W01",
	[SYS_poll] = "E01h",
	[SYS_ppoll] = "E01hS2S3",
	[SYS_epoll_wait] = "E12l",
	[SYS_epoll_pwait] = "E12lS4",
	[SYS_epoll_pwait2] = "E12lS3S4",
	[SYS_io_getevents] = "E32FS4",
	[SYS_io_pgetevents] = "E32FS4S5",
	[SYS_semop] = "E12f",
	[SYS_semtimedop] = "E12fS3",
	[SYS_msgsnd] = "R12S1",
	[SYS_msgrcv] = "W12S1",
	[SYS_mq_timedsend] = "R12S4",
	[SYS_mq_timedreceive] = "W12S3S4",
	[SYS_sched_setaffinity] = "R21",
	[SYS_sched_getaffinity] = "W21",
	[SYS_getgroups] = "E10d",
	[SYS_setgroups] = "E10d",
	[SYS_syslog] = "W12",
	[SYS_bpf] = "W12",
	[SYS_add_key] = "S0S1R23",
	[SYS_execve] = "S0A1A2",
	[SYS_execveat] = "S1A2A3",
	[SYS_move_pages] = "E21hE31dE41d",
	[SYS_process_madvise] = "E12p",
	[SYS_process_vm_readv] = "U12V34",
	[SYS_process_vm_writev] = "V12U34",
	[SYS_mincore] = "S2",
	[SYS_mbind] = "S3",
	[SYS_get_mempolicy] = "S0S1",
	[SYS_fcntl] = "S2",
	[SYS_getpid] = "",
	[SYS_gettid] = "",
	[SYS_getppid] = "",
	[SYS_getuid] = "",
	[SYS_geteuid] = "",
	[SYS_getgid] = "",
	[SYS_getegid] = "",
	[SYS_getpgrp] = "",
	[SYS_getpgid] = "",
	[SYS_getsid] = "",
	[SYS_setsid] = "",
	[SYS_setpgid] = "",
	[SYS_setuid] = "",
	[SYS_setgid] = "",
	[SYS_setreuid] = "",
	[SYS_setregid] = "",
	[SYS_setresuid] = "",
	[SYS_setresgid] = "",
	[SYS_setfsuid] = "",
	[SYS_setfsgid] = "",
	[SYS_close] = "",
	[SYS_dup] = "",
	[SYS_dup2] = "",
	[SYS_dup3] = "",
	[SYS_fsync] = "",
	[SYS_fdatasync] = "",
	[SYS_sync] = "",
	[SYS_lseek] = "",
	[SYS_sched_yield] = "",
	[SYS_ftruncate] = "",
	[SYS_fallocate] = "",
	[SYS_socket] = "",
	[SYS_listen] = "",
	[SYS_shutdown] = "",
	[SYS_kill] = "",
	[SYS_tkill] = "",
	[SYS_tgkill] = "",
	[SYS_umask] = "",
	[SYS_epoll_create] = "",
	[SYS_epoll_create1] = "",
	[SYS_eventfd] = "",
	[SYS_eventfd2] = "",
	[SYS_alarm] = "",
	[SYS_pause] = "",
	[SYS_fchmod] = "",
	[SYS_fchown] = "",
	[SYS_fchdir] = "",
	[SYS_flock] = "",
	[SYS_getpriority] = "",
	[SYS_setpriority] = "",
	[SYS_sched_get_priority_max] = "",
	[SYS_sched_get_priority_min] = "",
	[SYS_sched_getscheduler] = "",
	[SYS_munlockall] = "",
	[SYS_mlockall] = "",
	[SYS_inotify_init] = "",
	[SYS_inotify_init1] = "",
	[SYS_timerfd_create] = "",
	[SYS_timer_getoverrun] = "",
	[SYS_timer_delete] = "",
	[SYS_close_range] = "",
	[SYS_pidfd_open] = "",
	[SYS_pidfd_getfd] = "",
	[SYS_restart_syscall] = "",
	[SYS_membarrier] = "",
	[SYS_fadvise64] = "",
	[SYS_readahead] = "",
	[SYS_sync_file_range] = "",
	[SYS_tee] = "",
	[SYS_setns] = "",
	[SYS_unshare] = "",
	[SYS_ioprio_set] = "",
	[SYS_ioprio_get] = "",
	[SYS_semget] = "",
	[SYS_shmget] = "",
	[SYS_msgget] = "",
	[SYS_io_destroy] = "",
	[SYS_vhangup] = "",
	[SYS_personality] = "",
	[SYS_mmap] = "",
	[SYS_munmap] = "",
	[SYS_mremap] = "",
	[SYS_mprotect] = "",
	[SYS_pkey_mprotect] = "",
	[SYS_madvise] = "",
	[SYS_msync] = "",
	[SYS_mlock] = "",
	[SYS_mlock2] = "",
	[SYS_munlock] = "",
	[SYS_brk] = "",
	[SYS_shmat] = "",
	[SYS_shmdt] = "",
	[SYS_remap_file_pages] = "",
	[SYS_mseal] = "",
	[SYS_set_tid_address] = "",
	[SYS_set_robust_list] = "",
	[SYS_rseq] = "",
	[SYS_arch_prctl] = "",
	[SYS_exit] = "",
	[SYS_exit_group] = "",
	[SYS_futex] = "S3",
};

static bool is_near(uintptr_t addr, size_t len)
{
	return addr >= K_PAGE && addr < 1ul << 47 && len && region_near(addr, len);
}

static void hold(uintptr_t addr, size_t len, bool write)
{
	if (len > 1ul << 40)
		len = 1ul << 40;
	if (is_near(addr, len))
		trap_hold(addr, len, write);
}

/* The program may have given any address: for the kernel to say. */
static bool copy(void *to, uintptr_t from, size_t len)
{
	struct iovec local = { to, len }, remote = { (void *)from, len };

	hold(from, len, false);
	return k_syscall(SYS_process_vm_readv, k_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0),
			 (long)&local, 1, (long)&remote, 1, 0) == (long)len;
}

/* Fixed-size copies of some elements of an array at a time. */
#define EACH(type, item, at, n)                                                                    \
	for (size_t i_ = 0; i_ < (size_t)(n) && i_ < 1024; i_++)                                   \
		for (type item = { 0 }, *once_ = &item;                                            \
		     once_ && copy(&item, (at) + i_ * sizeof(item), sizeof(item)); once_ = NULL)

static void hold_vector(uintptr_t at, size_t n, bool write)
{
	struct iovec some[16] = { 0 };

	for (size_t done = 0; done < n && done < IOV_MAX;) {
		size_t k = n - done < 16 ? n - done : 16;
		if (!copy(some, at + done * sizeof(*some), k * sizeof(*some)))
			return;
		for (size_t i = 0; i < k; i++)
			hold((uintptr_t)some[i].iov_base, some[i].iov_len, write);
		done += k;
	}
}

static void hold_message(uintptr_t at, bool write)
{
	struct msghdr m = { 0 };

	hold(at, sizeof(m), write);
	if (!copy(&m, at, sizeof(m)))
		return;
	hold((uintptr_t)m.msg_name, m.msg_namelen, write);
	hold((uintptr_t)m.msg_control, m.msg_controllen, write);
	hold_vector((uintptr_t)m.msg_iov, m.msg_iovlen, write);
}

static void hold_strings(uintptr_t at)
{
	uintptr_t s = 0;

	if (!at)
		return;
	for (; copy(&s, at, sizeof(s)) && s; at += sizeof(s))
		hold(s, STRING, false);
}

static void hold_submitted(const struct trap_call *c)
{
	EACH(uintptr_t, at, (uintptr_t)c->arg[2], c->arg[1])
	{
		struct iocb io = { 0 };
		hold(at, sizeof(io), true);
		if (!copy(&io, at, sizeof(io)))
			continue;
		bool write = io.aio_lio_opcode == IOCB_CMD_PREAD ||
			     io.aio_lio_opcode == IOCB_CMD_PREADV ||
			     io.aio_lio_opcode == IOCB_CMD_POLL;
		if (io.aio_lio_opcode == IOCB_CMD_PREADV || io.aio_lio_opcode == IOCB_CMD_PWRITEV)
			hold_vector(io.aio_buf, io.aio_nbytes, write);
		else
			hold(io.aio_buf, io.aio_nbytes, write);
	}
}

static size_t element(char x)
{
	return x >= 'a' ? (size_t)(x - 'a' + 1) : (size_t)(x - 'A' + 27);
}

static void as_told(const char *s, const struct trap_call *c)
{
	while (*s) {
		char what = *s++;
		uintptr_t a = (uintptr_t)c->arg[*s++ - '0'];
		bool counted = what != 'S' && what != 'M' && what != 'N' && what != 'A';
		size_t n = counted ? (size_t)c->arg[*s++ - '0'] : 0;
		switch (what) {
		case 'R':
		case 'W':
			hold(a, n, what == 'W');
			break;
		case 'E':
			hold(a, n < 1ul << 32 ? n * element(*s) : 0, true);
			s++;
			break;
		case 'S':
			hold(a, SOME, true);
			break;
		case 'V':
		case 'U':
			hold_vector(a, n, what == 'U');
			break;
		case 'M':
		case 'N':
			hold_message(a, what == 'N');
			break;
		case 'm':
		case 'n':
			for (size_t i = 0; i < n && i < 1024; i++) {
				hold(a + i * sizeof(struct mmsghdr), sizeof(struct mmsghdr), true);
				hold_message(a + i * sizeof(struct mmsghdr), what == 'n');
			}
			break;
		case 'A':
			hold_strings(a);
			break;
		default:
			break;
		}
	}
}

static void else_any(const struct trap_call *c)
{
	for (unsigned i = 0; i < 6; i++)
		hold((uintptr_t)c->arg[i], SOME, true);
}

/* --- long transfers, piece by piece: what is pinned is beside the budget --- */

static bool moves(long nr, bool *write, bool *vector)
{
	*vector = false;
	*write = false; /* of memory */
	switch (nr) {
	case SYS_readv:
	case SYS_preadv:
	case SYS_preadv2:
		*vector = *write = true;
		return true;
	case SYS_writev:
	case SYS_pwritev:
	case SYS_pwritev2:
		*vector = true;
		return true;
	case SYS_read:
	case SYS_pread64:
	case SYS_recvfrom:
		*write = true;
		return true;
	case SYS_write:
	case SYS_pwrite64:
	case SYS_sendto:
		return true;
	default:
		return false;
	}
}

/* Would it take what is there, as a file does, or go on waiting for more? */
static bool may_go_on(const struct trap_call *c, bool write)
{
	struct stat st;

	if (!write || (c->nr == SYS_recvfrom && c->arg[3] & MSG_WAITALL))
		return true;
	return !k_syscall(SYS_fstat, c->arg[0], (long)&st, 0, 0, 0, 0) &&
	       (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
}

static long one_piece(const struct trap_call *c, uintptr_t base, size_t len, size_t done)
{
	struct iovec v = { (void *)base, len };
	bool at = c->nr != SYS_readv && c->nr != SYS_writev;
	long offset = c->arg[3];

	switch (c->nr) {
	case SYS_read:
	case SYS_write:
		return k_syscall(c->nr, c->arg[0], (long)base, (long)len, 0, 0, 0);
	case SYS_pread64:
	case SYS_pwrite64:
		return k_syscall(c->nr, c->arg[0], (long)base, (long)len, offset + (long)done, 0,
				 0);
	case SYS_sendto:
	case SYS_recvfrom:
		return k_syscall(c->nr, c->arg[0], (long)base, (long)len, c->arg[3], c->arg[4],
				 c->arg[5]);
	default: /* offset -1: where the file is; the upper half is not looked at (x86-64) */
		return k_syscall(c->nr, c->arg[0], (long)&v, 1,
				 at && offset != -1 ? offset + (long)done : offset, c->arg[4],
				 c->arg[5]);
	}
}

/* False: the call is short. */
static bool in_pieces(struct trap_call *c, long *result)
{
	bool write, vector;
	struct iovec all[64] = { 0 };
	size_t n = 1, total = 0, done = 0, managed = 0;

	if (!moves(c->nr, &write, &vector))
		return false;
	if (!vector) {
		all[0] = (struct iovec){ (void *)c->arg[1], (size_t)c->arg[2] };
	} else {
		n = (size_t)c->arg[2] < 64 ? (size_t)c->arg[2] : 64;
		if ((size_t)c->arg[2] > 64 || !copy(all, (uintptr_t)c->arg[1], n * sizeof(*all)))
			return false;
	}
	for (size_t i = 0; i < n; i++) {
		if (all[i].iov_len > SSIZE_MAX)
			return false;
		total += all[i].iov_len;
		if (is_near((uintptr_t)all[i].iov_base, all[i].iov_len))
			managed += all[i].iov_len;
	}
	if (managed <= PIECE)
		return false;
	bool on = may_go_on(c, write);
	uint64_t inside; /* between them handlers interrupt it as they would */
	for (size_t i = 0; i < n; i++) {
		uintptr_t at = (uintptr_t)all[i].iov_base;
		size_t left = all[i].iov_len;
		while (left) {
			size_t len = left < PIECE ? left : PIECE;
			trap_let_go();
			hold(at, len, write);
			k_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)c->mask, (long)&inside,
				  sizeof(inside), 0, 0);
			trap_inside(false);
			long got = one_piece(c, at, len, done);
			trap_inside(true);
			k_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&inside, 0, sizeof(inside),
				  0, 0);
			if (got < 0) {
				*result = done ? (long)done : got;
				return true;
			}
			done += (size_t)got;
			at += (size_t)got;
			left -= (size_t)got;
			if ((size_t)got < len || !on) {
				*result = (long)done;
				return true;
			}
		}
	}
	*result = (long)done;
	return true;
}

/* --- our descriptors --- */

static long close_around(const struct trap_call *c)
{
	const int *fds = sigfault_fds();
	unsigned first = (unsigned)c->arg[0], last = (unsigned)c->arg[1],
		 flags = (unsigned)c->arg[2];
	long r = 0;

	if (first < (unsigned)fds[0])
		r = k_syscall(SYS_close_range, first, fds[0] - 1, flags, 0, 0, 0);
	if (!r && last > (unsigned)fds[SIGFAULT_FDS - 1])
		r = k_syscall(SYS_close_range, fds[SIGFAULT_FDS - 1] + 1, last, flags, 0, 0, 0);
	return r;
}

static bool spares_ours(const struct trap_call *c, long *result)
{
	const int *fds = sigfault_fds();

	switch (c->nr) {
	case SYS_close:
		*result = -EBADF;
		return sigfault_owns((int)c->arg[0]);
	case SYS_dup2:
	case SYS_dup3:
		*result = -EBUSY;
		return sigfault_owns((int)c->arg[1]) && c->arg[0] != c->arg[1];
	case SYS_close_range:
		if (fds[0] < 0 || (unsigned)c->arg[0] > (unsigned)c->arg[1] ||
		    (unsigned)c->arg[0] > (unsigned)fds[SIGFAULT_FDS - 1] ||
		    (unsigned)c->arg[1] < (unsigned)fds[0])
			return false;
		*result = close_around(c);
		return true;
	default:
		return false;
	}
}

static bool populates(const struct trap_call *c, long *result)
{
	if (c->nr != SYS_madvise ||
	    (c->arg[2] != MADV_POPULATE_READ && c->arg[2] != MADV_POPULATE_WRITE) ||
	    !is_near((uintptr_t)c->arg[0], (size_t)c->arg[1]) || !sigfault_running())
		return false;
	trap_populate((uintptr_t)c->arg[0], (size_t)c->arg[1], c->arg[2] == MADV_POPULATE_WRITE);
	*result = 0;
	return true;
}

/* A ring's buffers may be used at any time. */
static bool is_refused(const struct trap_call *c, long *result)
{
	static _Atomic bool told;

	if (c->nr != SYS_io_uring_setup)
		return false;
	if (!atomic_exchange(&told, true))
		log_warn("engine.fault=signal: io_uring is refused to the program (ENOSYS), whose "
			 "buffers could be far; engine.fault=thread has no such limit");
	*result = -ENOSYS;
	return true;
}

enum trap_way trap_look(struct trap_call *c, long *result)
{
	const char *told =
	    c->nr >= 0 && c->nr < (long)(sizeof(table) / sizeof(table[0])) ? table[c->nr] : NULL;

	if (is_refused(c, result) || spares_ours(c, result) || populates(c, result) ||
	    in_pieces(c, result))
		return TRAP_DONE;
	switch (c->nr) {
	case SYS_io_submit:
		hold_submitted(c);
		break;
	case SYS_ioctl:
		hold((uintptr_t)c->arg[2],
		     (size_t)c->arg[1] >> 16 & 0x3fff ? (size_t)c->arg[1] >> 16 & 0x3fff : SOME,
		     true);
		break;
	case SYS_futex:
		hold((uintptr_t)c->arg[0], sizeof(int), true);
		hold((uintptr_t)c->arg[4], sizeof(int), true);
		break;
	case SYS_futex_waitv: {
		struct waiter {
			uint64_t val, addr;
			uint32_t flags, reserved;
		};
		EACH(struct waiter, w, (uintptr_t)c->arg[0], c->arg[1])
		hold(w.addr, sizeof(uint64_t), true);
		break;
	}
	case SYS_pread64:
	case SYS_pwrite64:
		/* /proc/self/mem */
		hold((uintptr_t)c->arg[3], (size_t)c->arg[2], c->nr == SYS_pwrite64);
		break;
	default:
		break;
	}
	if (told)
		as_told(told, c);
	else if (c->nr != SYS_ioctl && c->nr != SYS_io_submit)
		else_any(c);
	return TRAP_HELD;
}

#endif
