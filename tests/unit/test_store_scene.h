/* SPDX-License-Identifier: Apache-2.0 */
/* A store that is open, with the thread that the engine gives it and a queue of the test's. */
#ifndef TEST_STORE_SCENE_H
#define TEST_STORE_SCENE_H

#include "test_store_util.h"

#include <pthread.h>
#include <stdatomic.h>

#include "../../include/emfatier-stats.h"
#include "../../src/store/store.h"

#define SLOT (2u * MIB)

struct scene {
	struct store st;
	struct store_options opt;
	struct emf_store_stats stats[STORE_LEAVES];
	pthread_t thread;
	_Atomic bool stop;
	struct emf_queue *q;
	unsigned char *buf, *back; /* of a slot each */
};

/* What the engine's store thread does. */
static inline void *scene_work(void *arg)
{
	struct scene *s = arg;

	while (!s->stop)
		store_work(&s->st);
	return NULL;
}

static inline void scene_wake(struct scene *s)
{
	uint64_t one = 1;

	assert_int_equal(write(s->st.wake_fd, &one, sizeof(one)), sizeof(one));
}

/* s->opt says what to open, and where providers are and statistics go is said here; all else is 0.
 */
static inline void scene_start(struct scene *s)
{
	char err[512] = "";

	s->opt.provider_dir = providers_dir();
	s->opt.stats = s->stats;
	if (store_open(&s->st, &s->opt, err, sizeof(err)))
		fail_msg("%s", err);
	s->buf = pages(SLOT);
	s->back = pages(SLOT);
	s->q = queue_ok(s->st.top, EMF_QUEUE_DEMAND, 8);
	assert_int_equal(pthread_create(&s->thread, NULL, scene_work, s), 0);
}

/* From now on the test does what the thread did. */
static inline void scene_stop(struct scene *s)
{
	if (s->stop)
		return;
	s->stop = true;
	scene_wake(s);
	pthread_join(s->thread, NULL);
}

static inline void scene_close(struct scene *s)
{
	s->q->ops->close(s->q);
	scene_stop(s);
	store_close(&s->st);
	munmap(s->buf, SLOT);
	munmap(s->back, SLOT);
}

#endif
