/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "control.h"

#include <errno.h>
#include <limits.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine.h"
#include "log.h"

struct request {
	struct request *next;
	long (*fn)(uintptr_t, uintptr_t, unsigned);
	uintptr_t start, end;
	unsigned why;
	bool refusable;
	pid_t tid;
	long result;
	_Atomic uint32_t done;
};

static struct request *_Atomic incoming; /* a stack: newest first */
static _Atomic uint32_t doorbell;
static struct request *queue, **queue_end = &queue; /* in order; the control thread's */
static const struct request *current;
static pid_t paused_for; /* 0: not paused */

static void push(struct request *r)
{
	r->next = atomic_load(&incoming);
	while (!atomic_compare_exchange_weak(&incoming, &r->next, r))
		;
	word_signal(&doorbell);
}

long control_call(long (*fn)(uintptr_t, uintptr_t, unsigned), uintptr_t start, uintptr_t end,
		  unsigned why, bool refusable)
{
	struct request r = {
		.fn = fn,
		.start = start,
		.end = end,
		.why = why,
		.refusable = refusable,
		.tid = (pid_t)syscall(SYS_gettid),
	};

	uint64_t saved;

	/* A handler may never return (siglongjmp), and the request is on this stack. */
	k_signals_block(&saved);
	push(&r);
	while (!atomic_load(&r.done))
		word_wait(&r.done, 0, -1);
	k_signals_restore(saved);
	return r.result;
}

static struct request posted = { .done = 1 };

bool control_post(long (*fn)(uintptr_t, uintptr_t, unsigned), uintptr_t start, uintptr_t end,
		  unsigned why)
{
	if (!atomic_load(&posted.done))
		return false;
	posted = (struct request){
		.fn = fn,
		.start = start,
		.end = end,
		.why = why,
		.tid = (pid_t)syscall(SYS_gettid),
	};
	push(&posted);
	return true;
}

bool control_posted(int timeout_ms)
{
	word_wait(&posted.done, 0, timeout_ms);
	return atomic_load(&posted.done);
}

static void receive(void)
{
	struct request *r = atomic_exchange(&incoming, NULL), *ordered = NULL;

	if (!r)
		return;
	struct request **end = &r->next;
	while (r) {
		struct request *next = r->next;
		r->next = ordered;
		ordered = r;
		r = next;
	}
	*queue_end = ordered;
	queue_end = end;
}

static bool must_wait(const struct request *r)
{
	return paused_for && r->tid != paused_for;
}

static struct request *next_request(void)
{
	for (struct request **link = &queue; *link; link = &(*link)->next) {
		struct request *r = *link;
		if (must_wait(r) && !r->refusable)
			continue;
		*link = r->next;
		if (queue_end == &r->next)
			queue_end = link;
		return r;
	}
	return NULL;
}

void *control_main(void *unused)
{
	(void)unused;
	engine_thread_begin("emf-control");
	for (;;) {
		uint32_t seen = atomic_load(&doorbell);
		receive();
		struct request *r = next_request();
		if (!r) {
			word_wait(&doorbell, seen, -1);
			continue;
		}
		current = r;
		long result = must_wait(r) ? -EAGAIN : r->fn(r->start, r->end, r->why);
		current = NULL;
		r->result = result;
		/* The requester's stack frame may be gone as soon as it sees this. */
		atomic_store(&r->done, 1);
		k_futex_wake(&r->done, INT_MAX);
	}
	return NULL;
}

void control_pause(bool on)
{
	paused_for = on ? current->tid : 0;
}

void control_after_fork(void)
{
	incoming = NULL;
	queue = NULL;
	queue_end = &queue;
	current = NULL;
	paused_for = 0;
	posted.done = 1;
}
