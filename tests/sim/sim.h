/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulation of the engine in one thread, from one seed. The runtime's threads
 * (their real main loops) and the program's are coroutines; the kernel (kernel.h), the
 * locks (lock.h) and the leaves of the store are replaced. Coroutines change over only at
 * locks, futexes, poll, page faults and calls of the kernel, in an order that the
 * seed gives, so that a failure can be had again.
 *
 * Memory of the program is a page table without memory behind it: who of the
 * runtime touches it crashes. Frames are real memory, a page holding 8 bytes of content and
 * zeros, so that what the runtime does by itself (memset, memcpy) works and which
 * pages are there is the real kernel's to say.
 *
 * Half of the seeds are for engine.fault=signal: faults are the touching thread's own to resolve,
 * the kernel itself waits for none, and the program's system calls go through trap.c.
 */
#ifndef SIM_H
#define SIM_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- random numbers, all of the run's --- */

uint64_t rnd(void);
/* 0 to n - 1 */
size_t rnd_below(size_t n);
/* Once in n times; n 0: never. */
bool chance(unsigned n);

/* --- what the seed has chosen --- */

struct plan {
	unsigned servers;  /* fault threads */
	unsigned in_place; /* blocks that a slow node has room for */
	unsigned place;	   /* percent that belong there */
	uint64_t seed;
	bool signal;  /* engine.fault=signal */
	bool patient; /* waits in handlers have no end, which would hide that nobody was woken */
	bool move, poison;
	unsigned budget_blocks, threads, ops, leaves, slots, total_blocks;
	unsigned slow;	     /* a coroutine is held up once in so many calls */
	unsigned torn, busy; /* moves that end in the middle, or are refused */
	unsigned spurious;   /* waits that end by a signal */
	unsigned leaves_off; /* what was touched is not touched again: siglongjmp */
	unsigned tight;	     /* a stack for signals with no room */
	unsigned write_errors, read_errors, corruptions, stuck_ios; /* once in so many */
	unsigned rereads;  /* of leaves that need no waiting */
	unsigned delay_us; /* of transfers, at most */
	unsigned lost_poison;
	unsigned no_memory; /* mappings for the runtime that are refused */
	unsigned chaos;
	unsigned event_ms;   /* from a change to its event */
	unsigned discard_ms; /* from the event of a discard to the discard itself, at most */
	bool io_pins;	     /* transfers keep frames from moving, as with O_DIRECT */
	bool sync;	     /* leaves that need no waiting */
	bool trim, share, fork, raw, locks, remaps, resize;
	unsigned granule;
};
extern struct plan plan;

/* --- coroutines and time --- */

#define SIM_MS 1000000ul
#define SIM_S 1000000000ul
#define CO_MAX 24
#define CO_TLS 1024	     /* of the program; libc has its own */
#define HANG_NS (60 * SIM_S) /* nothing may take so long */

struct fault {
	bool parked, read, woken;
	bool write, protect;
	uintptr_t addr;
	uint64_t order;
};

struct co {
	void *sp;
	const char *name;
	void *(*fn)(void *);
	void *arg;
	bool (*ready)(struct co *, void *);
	void *ready_arg;
	uint64_t deadline, slow_until; /* 0: none */
	uint64_t since;		       /* the program's operation began; 0: none */
	uint64_t called;	       /* its system call did */
	const char *doing;
	bool used, timed_out;
	bool handles; /* in a signal's handler of the runtime's */
	bool bus;     /* SIGBUS was the program's */
	bool may_leave;
	char tls[CO_TLS];
	stack_t alt;
	uint32_t held; /* locks, a bit a rank */
	int err;
	const void *futex;
	bool futex_woken;
	struct fault fault;
};

extern uint64_t sim_now;
extern struct co *co_self;
extern struct co co_all[CO_MAX];
struct co *co_start(const char *name, void *(*fn)(void *), void *arg);
/* Until ready says so (true), or deadline (false). deadline 0: none. */
bool co_block(bool (*ready)(struct co *, void *), void *arg, uint64_t deadline);
/* Others may run here. */
void co_point(void);
void co_sleep(uint64_t ns);
/* Runs all until `over`. every: called now and then, between two steps. */
void co_run(bool (*over)(void), void (*every)(void));

void trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
extern bool tracing;
void sim_dump(void);

/* --- the kernel --- */

#define SIM_BASE 0x100000000000ul
#define SIM_PAGES 16384u
#define SIM_END (SIM_BASE + (uintptr_t)SIM_PAGES * 4096)

enum {
	P_MAPPED = 1 << 0,
	P_REGISTERED = 1 << 1,
	P_PRESENT = 1 << 2,
	P_PROTECTED = 1 << 3, /* by userfaultfd */
	P_POISON = 1 << 4,
	P_SHARED = 1 << 5, /* with a child of a fork */
	P_PINNED = 1 << 6,
	P_LOCKED = 1 << 7,
	P_READONLY = 1 << 8,
	P_SECRET = 1 << 9,   /* MADV_DONTDUMP has returned */
	P_NONE = 1 << 10,    /* PROT_NONE */
	P_SLOW = 1 << 11,    /* on the slow node */
	P_FORKED = 1 << 12,  /* shared with a child that the engine knows of */
	P_REFUSED = 1 << 13, /* it would not leave that */
};

/* What the program must find. */
struct model {
	uint64_t value;
	bool or_zero; /* a discard went on while it was written */
	bool lost;    /* SIGBUS was seen */
	bool written; /* since the discard under way began */
	bool twice;   /* the same: then it may be what was written before, too */
	uint8_t discards;
};

struct page {
	uint64_t value;
	uint32_t flags;
	int64_t shift; /* from where it was mapped first: what separates mappings */
	struct model model;
};

struct page *page_at(uintptr_t addr);
static inline bool is_program(uintptr_t addr)
{
	return addr >= SIM_BASE && addr < SIM_END;
}

/* FAULT: nobody serves the kernel's. LEFT: a handler has not come back. */
enum touch { TOUCHED, TOUCH_SEGV, TOUCH_BUS, TOUCH_FAULT, TOUCH_LEFT };
/* By whom ever; waits for the page. value: NULL: a read, else what is written. */
enum touch touch(uintptr_t addr, const uint64_t *value);
/*
 * By the kernel, for program_call; a write without a value leaves what is there. 0 or -EFAULT,
 * which nobody is to see but for what the program itself did meanwhile.
 */
int kernel_touch(uintptr_t addr, bool write, const uint64_t *value);

#define UFFD_FD 5000
#define PAGEMAP_FD 5001
#define EVENT_FD 5002 /* and more of them */
bool kernel_fd_ready(int fd);
extern unsigned kernel_given; /* so often it was another fault thread's turn to lead */
/* The part of the frames that a transfer reads or writes. */
bool store_pins(uintptr_t addr);

/* --- engine.fault=signal --- */

extern unsigned long signal_faults, signal_given, signal_calls;
void signal_start(void);
/* First thing in a thread of the program's. */
void signal_thread(void);
/* Of a descriptor that has two numbers. */
int signal_fd(int fd);
/* A call of the runtime's. False: the real kernel's. */
bool signal_syscall(long n, const long *a, long *result);
/* True: the signal was the program's. */
bool signal_fault(uintptr_t addr, bool write, bool present, bool poison);
bool signal_is_lost(uintptr_t addr);
/* A system call of the program's, as it passes through the runtime. arg: six. */
long program_call(long nr, const long *arg, long (*made)(const long *));

/* --- the store --- */

bool store_fd_ready(int fd);
/* After `now`. */
uint64_t store_next_due(uint64_t now);
bool store_quiet(void);
extern unsigned store_failures; /* that may have lost pages */
#define STORE_FD 5100

/* All of its threads, from the first to the last. */
void program_run(void);
/* Is MREMAP_DONTUNMAP under way there? Until that has returned nobody knows of what is left. */
bool program_leaves(uintptr_t addr);

/* --- scenarios --- */

extern const struct scenario {
	const char *name; /* NULL: there are no more */
	void (*run)(void);
	unsigned chaos, granule; /* of the plan */
} scenarios[];
void scenario_plan(const struct scenario *s);

/* --- the program (preload/mman.c under other names) --- */

void *sim_mmap(void *addr, size_t len, int prot, int flags, int fd, long off);
int sim_munmap(void *addr, size_t len);
void *sim_mremap(void *addr, size_t old_len, size_t new_len, int flags, ...);
int sim_madvise(void *addr, size_t len, int advice);
int sim_mprotect(void *addr, size_t len, int prot);
int sim_mlock(const void *addr, size_t len);
int sim_munlock(const void *addr, size_t len);

#endif
