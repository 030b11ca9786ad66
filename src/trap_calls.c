/* SPDX-License-Identifier: Apache-2.0 */
/* Which memory a system call reads and writes. Of a call that is not in the table: see else_any. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#undef BLOCK_SIZE
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

#include "engine.h"
#include "kernel.h"
#include "log.h"
#include "mapped.h"
#include "region.h"
#include "sigfault.h"
#include "trap.h"

#ifdef __x86_64__

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#ifndef SYS_futex_requeue
#define SYS_futex_requeue 456
#endif
#ifndef SYS_statmount
#define SYS_statmount 457
#define SYS_listmount 458
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
	[SYS_vmsplice] = "U12",
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
	[SYS_msgsnd] = "",
	[SYS_msgrcv] = "",
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
	[SYS_mincore] = "",
	[SYS_mbind] = "S3",
	[SYS_get_mempolicy] = "S0S1S3",
	[SYS_init_module] = "R01S2",
	[SYS_statmount] = "S0W12",
	[SYS_listmount] = "S0E12h",
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
	[SYS_mlock] = "W01",
	[SYS_mlock2] = "W01",
	[SYS_munlock] = "",
	[SYS_brk] = "",
	[SYS_shmat] = "",
	[SYS_shmdt] = "",
	[SYS_remap_file_pages] = "",
	[SYS_mseal] = "",
	[SYS_set_tid_address] = "",
	[SYS_set_robust_list] = "",
	[SYS_rseq] = "",
	[SYS_arch_prctl] = "S1",
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
	hold(from, len, false);
	return trap_read(to, from, len);
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

/* Of a classic BPF. */
static void hold_filter(uintptr_t at)
{
	struct sock_fprog f = { 0 };

	if (copy(&f, at, sizeof(f)))
		hold((uintptr_t)f.filter, f.len * sizeof(*f.filter), false);
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

#define MOST 0x7ffff000ul /* the kernel's MAX_RW_COUNT */
/* Not the same in pieces. */
#define WHOLE (MSG_PEEK | MSG_OOB | MSG_FASTOPEN | MSG_ZEROCOPY | MSG_ERRQUEUE)

struct transfer {
	bool write; /* of memory */
	bool message;
	struct msghdr m;
	uintptr_t vector; /* of n parts; 0: it is `one` */
	size_t n;
	struct iovec one, some[16]; /* some: of the vector, from number `from` on */
	size_t from;
};

/* False: no such call, or an address that is none. */
static bool transfers(const struct trap_call *c, struct transfer *t)
{
	*t = (struct transfer){
		.n = 1,
		.one = { (void *)c->arg[1], (size_t)c->arg[2] },
		.from = SIZE_MAX,
	};
	switch (c->nr) {
	case SYS_readv:
	case SYS_preadv:
	case SYS_preadv2:
		t->write = true;
		/* fall through */
	case SYS_writev:
	case SYS_pwritev:
	case SYS_pwritev2:
		t->vector = (uintptr_t)c->arg[1];
		t->n = (size_t)c->arg[2];
		return t->n <= IOV_MAX;
	case SYS_read:
	case SYS_pread64:
		t->write = true;
		/* fall through */
	case SYS_write:
	case SYS_pwrite64:
		return true;
	case SYS_recvfrom:
	case SYS_sendto:
		t->write = c->nr == SYS_recvfrom;
		return !(c->arg[3] & WHOLE);
	case SYS_recvmsg:
	case SYS_sendmsg:
		t->write = c->nr == SYS_recvmsg;
		t->message = true;
		if (c->arg[2] & WHOLE || !copy(&t->m, (uintptr_t)c->arg[1], sizeof(t->m)))
			return false;
		t->vector = (uintptr_t)t->m.msg_iov;
		t->n = t->m.msg_iovlen;
		return t->n <= IOV_MAX;
	default:
		return false;
	}
}

static bool part(struct transfer *t, size_t i, struct iovec *v)
{
	const size_t most = sizeof(t->some) / sizeof(t->some[0]);

	if (!t->vector) {
		*v = t->one;
		return true;
	}
	if (t->from != i / most * most) {
		size_t n = t->n - i / most * most;
		t->from = i / most * most;
		if (!copy(t->some, t->vector + t->from * sizeof(*v),
			  (n < most ? n : most) * sizeof(*v)))
			return false;
	}
	*v = t->some[i % most];
	return v->iov_len <= SSIZE_MAX;
}

/* Is it a stream of bytes, and not of messages, each of which is one call's? */
static bool is_stream(long fd, bool *file)
{
	struct stat st;
	int type = 0;
	socklen_t len = sizeof(type);

	*file = false;
	if (k_syscall(SYS_fstat, fd, (long)&st, 0, 0, 0, 0))
		return false;
	if (S_ISSOCK(st.st_mode))
		return !k_syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, (long)&type, (long)&len,
				  0) &&
		       type == SOCK_STREAM;
	*file = S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) ||
		(S_ISCHR(st.st_mode) && major(st.st_rdev) == 1 /* zero, null ... */);
	return *file || S_ISFIFO(st.st_mode);
}

static bool has_offset(long nr)
{
	return nr == SYS_pread64 || nr == SYS_pwrite64 || nr == SYS_preadv || nr == SYS_pwritev ||
	       nr == SYS_preadv2 || nr == SYS_pwritev2;
}

static long one_piece(const struct trap_call *c, struct transfer *t, struct iovec v, size_t done)
{
	long arg[6] = { c->arg[0], c->arg[1], c->arg[2], c->arg[3], c->arg[4], c->arg[5] };
	struct msghdr m = t->m;

	if (t->message) {
		m.msg_iov = &v;
		m.msg_iovlen = 1;
		if (done && !t->write)
			m.msg_controllen = 0;
		arg[1] = (long)&m;
	} else if (t->vector) {
		arg[1] = (long)&v;
		arg[2] = 1;
	} else {
		arg[1] = (long)v.iov_base;
		arg[2] = (long)v.iov_len;
	}
	/* Offset -1: where the file is; the upper half is not looked at (x86-64). */
	if (has_offset(c->nr) && arg[3] != -1)
		arg[3] += (long)done;
	long r = trap_piece(c, arg, done);
	if (t->message && r >= 0) {
		t->one.iov_len = m.msg_controllen; /* of this piece */
		t->m.msg_namelen = m.msg_namelen;
		t->m.msg_flags = m.msg_flags;
	}
	return r;
}

/* What it uses beside the piece. */
static void hold_beside(const struct trap_call *c, const struct transfer *t)
{
	if (c->nr == SYS_sendto)
		hold((uintptr_t)c->arg[4], (size_t)c->arg[5], false);
	if (c->nr == SYS_recvfrom) {
		hold((uintptr_t)c->arg[4], sizeof(struct sockaddr_storage), true);
		hold((uintptr_t)c->arg[5], sizeof(socklen_t), true);
	}
	if (t->message) {
		hold((uintptr_t)t->m.msg_name, t->m.msg_namelen, t->write);
		hold((uintptr_t)t->m.msg_control, t->m.msg_controllen, t->write);
	}
}

static long all_pieces(const struct trap_call *c, struct transfer *t, bool on)
{
	size_t done = 0;
	struct iovec v;

	for (size_t i = 0; i < t->n; i++) {
		if (!part(t, i, &v))
			return done ? (long)done : -EFAULT;
		uintptr_t at = (uintptr_t)v.iov_base;
		size_t left = v.iov_len;
		while (left && done < MOST) {
			size_t len = left < PIECE ? left : PIECE;
			len = len < MOST - done ? len : MOST - done;
			trap_let_go(c);
			hold(at, len, t->write);
			hold_beside(c, t);
			long got = one_piece(c, t, (struct iovec){ (void *)at, len }, done);
			if (got < 0)
				return done ? (long)done : got;
			done += (size_t)got;
			at += (size_t)got;
			left -= (size_t)got;
			/* What came beside it belongs to these bytes. */
			bool more = !t->message || !t->write || !t->one.iov_len;
			if ((size_t)got < len || !on || !more)
				return (long)done;
		}
	}
	return (long)done;
}

/* False: the call is short. */
static bool in_pieces(struct trap_call *c, long *result)
{
	struct transfer t;
	struct iovec v;
	size_t managed = 0;
	bool file;

	if (!transfers(c, &t))
		return false;
	for (size_t i = 0; i < t.n; i++) {
		if (!part(&t, i, &v))
			return false;
		if (is_near((uintptr_t)v.iov_base, v.iov_len))
			managed += v.iov_len;
	}
	if (managed <= PIECE || !is_stream(c->arg[0], &file))
		return false;
	/* Would it take what is there, as a file does, or go on waiting for more? */
	bool all = !t.write || file;
	all |= c->nr == SYS_recvfrom && c->arg[3] & MSG_WAITALL;
	all |= c->nr == SYS_recvmsg && c->arg[2] & MSG_WAITALL;
	size_t room = t.m.msg_controllen;
	t.one.iov_len = t.message ? 0 : t.one.iov_len;
	*result = all_pieces(c, &t, all);
	if (t.message && t.write && *result >= 0) {
		t.m.msg_controllen = t.one.iov_len < room ? t.one.iov_len : room;
		if (!trap_write((uintptr_t)c->arg[1], &t.m, sizeof(t.m)))
			*result = -EFAULT;
	}
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
	    !is_near((uintptr_t)c->arg[0], (size_t)c->arg[1]))
		return false;
	*result = k_syscall(SYS_madvise, c->arg[0], c->arg[1], c->arg[2], 0, 0, 0);
	*result = trap_populated(*result, (uintptr_t)c->arg[0], (size_t)c->arg[1],
				 c->arg[2] == MADV_POPULATE_WRITE);
	return true;
}

/* Past libc's symbol: what was added, or left, is to be known before a call's buffer lies there. */
static bool remaps(const struct trap_call *c, long *result)
{
	const size_t page = K_PAGE - 1;
	size_t was = ((size_t)c->arg[1] + page) & ~page, is = ((size_t)c->arg[2] + page) & ~page;

	if (c->nr != SYS_mremap || !is_near((uintptr_t)c->arg[0], was) || !sigfault_running())
		return false;
	/* What a file's grows by has the file's content. */
	if (mapped_in((void *)c->arg[0], was)) {
		mapped_give_back((void *)c->arg[0], was);
		return false;
	}
	long r = k_syscall(SYS_mremap, c->arg[0], c->arg[1], c->arg[2], c->arg[3], c->arg[4], 0);
	*result = r;
	if (r < 0)
		return true;
	if (c->arg[3] & MREMAP_DONTUNMAP)
		engine_left((void *)c->arg[0], was, (void *)r);
	else if (was && is > was)
		engine_grown((void *)((uintptr_t)r + was), is - was);
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

/* There is one dispatcher of a thread: ours. */
static bool is_dispatcher(const struct trap_call *c, long *result)
{
	*result = -EINVAL;
	return c->nr == SYS_prctl && c->arg[0] == PR_SET_SYSCALL_USER_DISPATCH;
}

enum trap_way trap_look(struct trap_call *c, long *result)
{
	const char *told =
	    c->nr >= 0 && c->nr < (long)(sizeof(table) / sizeof(table[0])) ? table[c->nr] : NULL;

	if (is_refused(c, result) || is_dispatcher(c, result) || spares_ours(c, result) ||
	    populates(c, result) || remaps(c, result) || in_pieces(c, result))
		return TRAP_DONE;
	switch (c->nr) {
	case SYS_io_submit:
		hold_submitted(c);
		break;
	case SYS_ioctl: {
		/* Some have an array behind a structure whose size alone is told. */
		size_t told_size = (size_t)c->arg[1] >> 16 & 0x3fff;
		hold((uintptr_t)c->arg[2], told_size > SOME ? told_size : SOME, true);
		break;
	}
	case SYS_msgsnd:
	case SYS_msgrcv:
		/* Behind its type. */
		hold((uintptr_t)c->arg[1], sizeof(long) + (size_t)c->arg[2], c->nr == SYS_msgrcv);
		break;
	case SYS_mincore:
		hold((uintptr_t)c->arg[2], ((size_t)c->arg[1] + K_PAGE - 1) / K_PAGE, true);
		break;
	case SYS_semctl:
		hold((uintptr_t)c->arg[3], 65536, true); /* a set has 32000 at most */
		break;
	case SYS_getsockopt: {
		uint32_t len;
		if (copy(&len, (uintptr_t)c->arg[4], sizeof(len)))
			hold((uintptr_t)c->arg[3], len, true);
		break;
	}
	case SYS_setsockopt:
		if (c->arg[1] == SOL_SOCKET &&
		    (c->arg[2] == SO_ATTACH_FILTER || c->arg[2] == SO_ATTACH_REUSEPORT_CBPF))
			hold_filter((uintptr_t)c->arg[3]);
		break;
	case SYS_seccomp:
		if (c->arg[0] == SECCOMP_SET_MODE_FILTER)
			hold_filter((uintptr_t)c->arg[2]);
		break;
	case SYS_prctl:
		if (c->arg[0] == PR_SET_SECCOMP && c->arg[1] == SECCOMP_MODE_FILTER)
			hold_filter((uintptr_t)c->arg[2]);
		break;
	case SYS_futex:
		hold((uintptr_t)c->arg[0], sizeof(int), true);
		hold((uintptr_t)c->arg[4], sizeof(int), true);
		break;
	case SYS_futex_waitv:
	case SYS_futex_requeue: {
		struct waiter {
			uint64_t val, addr;
			uint32_t flags, reserved;
		};
		EACH(struct waiter, w, (uintptr_t)c->arg[0],
		     c->nr == SYS_futex_requeue ? 2 : c->arg[1])
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
