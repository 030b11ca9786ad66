/* SPDX-License-Identifier: Apache-2.0 */
/* A timerfd that is set only when its time changes, and the clock it goes by. */
#ifndef EMF_TIMER_H
#define EMF_TIMER_H

#include <errno.h>
#include <stdint.h>
#include <sys/timerfd.h>
#include <time.h>

struct timer {
	int fd;
	uint64_t at; /* ns; 0: not set */
};

static inline uint64_t timer_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline int timer_open(struct timer *t)
{
	t->at = 0;
	t->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	return t->fd < 0 ? -errno : 0;
}

/* Its descriptor is readable from then on. A time in the past is fine. */
static inline void timer_set(struct timer *t, uint64_t at)
{
	struct itimerspec when = { .it_value = { (time_t)(at / 1000000000u),
						 (long)(at % 1000000000u) } };

	if (t->at == at)
		return;
	t->at = at;
	timerfd_settime(t->fd, TFD_TIMER_ABSTIME, &when, NULL);
}

#endif
