/* SPDX-License-Identifier: Apache-2.0 */
#include "mailbox.h"

#include <limits.h>
#include <string.h>

#include "fmt.h"
#include "kernel.h"

_Static_assert(sizeof(struct mailbox) <= 4096, "one page of the file");

static uint32_t served; /* our own count: what is in shared memory may be anything */

void mailbox_init(struct mailbox *m)
{
	served = 0;
	atomic_store(&m->magic, MAILBOX_MAGIC);
}

bool mailbox_take(struct mailbox *m, char *out)
{
	uint32_t asked = atomic_load_explicit(&m->asked, memory_order_acquire);

	if (asked == served)
		return false;
	/* What was overwritten meanwhile is lost; nobody who keeps to the rules does that. */
	if (asked - served > MAILBOX_SLOTS)
		served = asked - MAILBOX_SLOTS;
	memcpy(out, m->slot[served % MAILBOX_SLOTS].text, MAILBOX_TEXT);
	out[MAILBOX_TEXT - 1] = 0;
	return true;
}

void mailbox_answer(struct mailbox *m, enum mailbox_status status, const char *text, uint32_t store)
{
	struct mailbox_slot *s = &m->slot[served % MAILBOX_SLOTS];

	fmt_s(s->reply, sizeof(s->reply), "%s", text);
	atomic_store(&s->store, store);
	atomic_store(&s->status, status);
	atomic_store_explicit(&m->answered, ++served, memory_order_release);
	k_futex_wake_shared(&m->answered, INT_MAX);
}
