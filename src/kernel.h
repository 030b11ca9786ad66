/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one file that knows the kernel's ABI: raw system calls (never libc's
 * symbols, which preload/ interposes), futexes, userfaultfd, pagemap.
 * Functions return 0 or a count, else -errno. Any thread; none allocates.
 *
 * Sources: linux/userfaultfd.h, Documentation/admin-guide/mm/userfaultfd.rst and
 * pagemap.rst, mm/userfaultfd.c (move_pages), man 2 futex.
 */
#ifndef EMF_KERNEL_H
#define EMF_KERNEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define K_PAGE 4096u

/* What is made from here is not dispatched: trap.h. */
#define EMF_ALLOWED __attribute__((section("emf_allowed"), noinline))

/* Straight to the kernel: -errno, and errno is left alone. */
long k_syscall(long n, long a, long b, long c, long d, long e, long f);

/* Memory of our own: anonymous, private, zeroed. NULL: none left. */
void *k_map(size_t len);
/* The same with mmap's `flags`, aligned to a power of two of pages. NULL: none left. */
void *k_map_aligned(size_t len, size_t align, int flags);
/* Address space only as long as it is not touched; aligned, with a huge-page hint. */
void *k_reserve(size_t len, size_t align, bool huge);
void k_unmap(void *p, size_t len);

/* The program's calls, for the interposed functions. Return -errno. */
long k_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
int k_munmap(void *addr, size_t len);
int k_madvise(void *addr, size_t len, int advice);
/* The NUMA node that the page at addr lies on, or -errno. */
int k_page_node(void *addr);
/* Do the pages of [addr, addr + len), of which one in `step` is asked, lie on that NUMA node? */
bool k_is_on_node(void *addr, size_t len, size_t step, int node);
/* Moves what of that is on node `from`, and not shared, to the node of this CPU. Slow. */
void k_bring_near(void *addr, size_t len, int from);
/* Pages that come to be there are to lie on that node if it has room; -1: wherever. */
int k_prefer_node(void *addr, size_t len, int node);
long k_mremap(void *addr, size_t old_len, size_t new_len, int flags, void *new_addr);

/* Since when the headers have them is not ours to mind. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

int k_futex_wait(_Atomic uint32_t *word, uint32_t seen, int timeout_ms);
int k_futex_wake(_Atomic uint32_t *word, int n);
/* The same for a word in a mapping that several processes share. */
int k_futex_wait_shared(_Atomic uint32_t *word, uint32_t seen, int timeout_ms);
int k_futex_wake_shared(_Atomic uint32_t *word, int n);

uint64_t k_now_ns(void); /* CLOCK_MONOTONIC */

/* Blocks all signals in the calling thread; *saved for k_signals_restore. */
void k_signals_block(uint64_t *saved);
void k_signals_restore(uint64_t saved);
/* But these. */
extern uint64_t k_signals_open;
/* The CPU that a thread of this process runs on, or ran on last; -1: not known. By /proc: slow. */
int k_thread_cpu(pid_t tid);

/* That the calling thread may run on; 0: not known. */
unsigned k_cores(void);

/* For k_schedstat of a thread of this process; -errno. */
int k_open_schedstat(pid_t tid);
/*
 * Documentation/scheduler/sched-stats.rst: how long that thread ran, and was ready to but did not,
 * in ns. False: it is no more, or the kernel does not count that.
 */
bool k_schedstat(int fd, int64_t *ran, int64_t *waited);

/*
 * The calling thread goes before others of this process where it may (CAP_SYS_NICE, RLIMIT_NICE),
 * or is given shorter slices (Linux 6.12, sched_setattr(2)), for which it has its turn the sooner.
 * A child of its own begins with nice 0 at the lowest, and usual slices. Nothing where the program
 * has another policy than SCHED_OTHER.
 */
void k_be_prompt(void);

/* By a thread of ours: libc runs setuid and the like in every thread by this one signal. */
void k_signals_allow_setxid(void);
/* Has each thread call fn before it does. To be said again when libc made its first thread. */
void k_setxid_before(void (*fn)(void));

/* Threads of this process (also the runtime's), 0: cannot tell. */
unsigned k_threads(void);

/* Has the main thread ended (by pthread_exit), others going on? */
bool k_main_thread_gone(void);

/* A descriptor table of the calling thread's own, with nothing in it but keep[0..n). */
int k_own_descriptors(const int *keep, unsigned n);

/* A connected pair of sockets, CLOEXEC, for k_send_fds and k_receive_fds. */
int k_socketpair(int fds[2]);
/* A copy of descriptor fd of the process's main thread, whose table may be another. */
int k_borrow_fd(int fd);
int k_send_fds(int sock, const int *fds, unsigned n);
/* Receives all that were sent, CLOEXEC; the count, -EPROTO: anything else came. Does not block. */
int k_receive_fds(int sock, int *fds, unsigned max);

/* A memory file of that size, CLOEXEC; the same opened anew (a description of its own). */
int k_memfd(const char *name, size_t len);
int k_reopen(int fd);
/* Locks byte `at` of the file for its open description, while any copy of that is open. -EAGAIN. */
int k_lock_byte(int fd, uint64_t at);
void k_unlock_byte(int fd, uint64_t at);

int k_eventfd(void);
void k_eventfd_signal(int fd);
void k_eventfd_drain(int fd);

/*
 * While the kernel carries out a munmap, mremap or madvise of the program on registered
 * memory, until its event was read, all that changes pages answers -EAGAIN. So
 * whoever may hold up the reader of events must not try again, but give way.
 */
struct uffd {
	int fd;
	int pagemap; /* /proc/self/pagemap */
	bool move;   /* UFFDIO_MOVE works (6.8) */
	bool poison; /* UFFDIO_POISON works (6.6) */
};

/*
 * Opens by system call, else /dev/userfaultfd. -EPERM: not allowed here. -EACCES, -ENOENT:
 * /proc/self/pagemap can't be opened, without which nobody could tell a page that is swapped out
 * from one that never was there.
 */
int uffd_open(struct uffd *u, bool want_move);
/* The same with UFFD_FEATURE_SIGBUS: a fault ends in a signal, in a system call with EFAULT. */
int uffd_open_signal(struct uffd *u, bool want_move);
/* With that nobody waits in the kernel, but may do elsewhere: who is to be woken instead. */
extern void (*uffd_on_wake)(uintptr_t addr, size_t len);
/* After -EPERM: would faults of user mode alone be allowed? */
bool uffd_user_mode_only(void);
void uffd_close(struct uffd *u);
/* May the calling thread open one? */
bool uffd_allowed(void);
/* What uffd_open needs besides: -EACCES or -ENOENT when it is not to be had. */
int uffd_open_pagemap(void);

/*
 * missing: faults on absent pages are reported, and writes to protected ones;
 * without it only the latter, so that the runtime may touch the range itself.
 */
int uffd_register(const struct uffd *u, void *addr, size_t len, bool missing);
int uffd_unregister(const struct uffd *u, void *addr, size_t len);

/*
 * Moves all pages of src to dst, which must be empty. holes: src may have some, which
 * stay holes; without it a missing page is an error (-ENOENT).
 * Does not wake. On error nothing has moved (a part that did is moved back); but where even
 * that is refused *torn is true: each page is on either side.
 * -EBUSY: shared with a forked process, or pinned by a device. -EEXIST: dst is not empty.
 */
int uffd_move(const struct uffd *u, void *dst, void *src, size_t len, bool holes, bool *torn);
/*
 * The same with holes, but passes over mappings that MOVE refuses, as those that the program may
 * not write. kept: has a bit set for each page of these, afterwards, if there was no error.
 */
int uffd_move_writable(const struct uffd *u, void *dst, void *src, size_t len, uint64_t *kept,
		       bool *torn);
/* Copies into absent pages. protect: they arrive write-protected, in one step. Does not wake. */
int uffd_copy(const struct uffd *u, void *dst, const void *src, size_t len, bool protect);
/* Maps zero pages up to the first page that is there. Does not wake; returns the bytes mapped. */
ssize_t uffd_zero(const struct uffd *u, void *addr, size_t len);
int uffd_protect(const struct uffd *u, void *addr, size_t len, bool on);
/* Is an event unread, or about to come? page: any registered page of the runtime's own. */
bool uffd_changing(const struct uffd *u, void *page);
int uffd_poison(const struct uffd *u, void *addr, size_t len);
void uffd_wake(const struct uffd *u, void *addr, size_t len);
/*
 * By the one thread that must not be displaced by who it wakes while it holds a lock: its wakes
 * wait from now on until it calls uffd_wake_held.
 */
void uffd_hold_wakes(void);
void uffd_wake_held(const struct uffd *u);

enum uffd_what { UFFD_FAULT, UFFD_UNMAPPED, UFFD_DISCARDED, UFFD_MOVED };

struct uffd_message {
	enum uffd_what what;
	uintptr_t addr, end; /* [addr, end); of a fault only addr */
	uintptr_t to;	     /* MOVED: where addr is now */
	bool write;	     /* the access was a write */
	bool write_protect;  /* a write to a protected page; else the page is absent */
	pid_t tid;	     /* whose; 0: not known */
};
/* Reads at most max (up to 16) messages without blocking; returns their number. */
int uffd_read(const struct uffd *u, struct uffd_message *out, int max);

/* The last part of the name of the file that is mapped there, or "". By /proc: slow. */
void k_object_name(uintptr_t addr, char *out, size_t len);
/* The mapping that holds addr. By /proc: slow. -ENOENT: there is none. */
int k_mapping(uintptr_t addr, uintptr_t *start, uintptr_t *end);

struct presence {
	size_t bytes;	  /* present or swapped out */
	uintptr_t last;	  /* the last such page */
	size_t protected; /* bytes of that, write-protected */
	bool split; /* one of them is not part of a huge page, as far as the kernel says (6.7) */
};
/* What of the range has a page. PAGEMAP_SCAN (6.7), else /proc/self/pagemap. */
int uffd_presence(const struct uffd *u, void *addr, size_t len, struct presence *out);
/* The same as a bit for each of n pages, at most 512. -EIO, or the errno of pread. */
int uffd_present(const struct uffd *u, void *addr, size_t n, uint64_t *there);

#endif
