/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "identity.h"

#include <linux/capability.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/syscall.h>

#include "engine.h"

/* Of more than these the last count: each leads to the same end. */
#define STEPS 32

static struct step {
	long call, args[5];
	struct __user_cap_header_struct head;
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
} steps[STEPS];
static _Atomic unsigned made; /* by the main thread only */
static __thread unsigned done __attribute__((tls_model("initial-exec")));
static __thread bool ours __attribute__((tls_model("initial-exec")));

/* Not by the child of a vfork either, whose memory this is, too. */
static struct step *next(void)
{
	if (engine_thread || !engine.threads ||
	    k_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0) != engine.pid)
		return NULL;
	return &steps[made % STEPS];
}

void identity_prctl(int what, long a, long b, long c, long d)
{
	struct step *to;

	/* What is for exec only (the bounding set, ambient capabilities) changes nothing here. */
	if (what != PR_SET_KEEPCAPS && what != PR_SET_SECUREBITS)
		return;
	to = next();
	if (!to)
		return;
	*to = (struct step){ .call = SYS_prctl, .args = { what, a, b, c, d } };
	atomic_fetch_add(&made, 1);
}

void identity_capset(const void *head, const void *data)
{
	struct step *to = next();

	if (!to)
		return;
	*to = (struct step){ .call = SYS_capset };
	memcpy(&to->head, head, sizeof(to->head));
	to->head.pid = 0;
	memcpy(to->data, data,
	       to->head.version == _LINUX_CAPABILITY_VERSION_1 ? sizeof(to->data[0])
							       : sizeof(to->data));
	to->args[0] = (long)&to->head;
	to->args[1] = (long)to->data;
	atomic_fetch_add(&made, 1);
}

void identity_begin(void)
{
	ours = true;
}

void identity_follow(void)
{
	unsigned n = made;

	if (!ours)
		return;
	if (n - done > STEPS)
		done = n - STEPS;
	for (; done != n; done++) {
		const struct step *s = &steps[done % STEPS];

		k_syscall(s->call, s->args[0], s->args[1], s->args[2], s->args[3], s->args[4], 0);
	}
}

void identity_after_fork(void)
{
	made = 0;
}
