/* SPDX-License-Identifier: Apache-2.0 */
/* A scene whose members come and go: what the engine gives the store for that, and how it asks. */
#ifndef TEST_STORE_LIVE_H
#define TEST_STORE_LIVE_H

#include "test_store_scene.h"

#define SLOTS 24u

/* hold and release, alone: of one scene at a time. */
static pthread_mutex_t held[64];
static _Atomic bool unused[64], children;
static uint64_t rate = 1ull << 40;
static const char *run_dir;
static _Atomic unsigned times_grown, times_scattered;

static inline bool hold(uint64_t slot)
{
	if (slot >= 64 || unused[slot])
		return false;
	pthread_mutex_lock(&held[slot]);
	return true;
}

static inline void release(uint64_t slot)
{
	pthread_mutex_unlock(&held[slot]);
}

/* What is held is not written, nor trimmed; nor is it held meanwhile. */
static inline void changing(uint64_t offset, bool begins)
{
	if (begins)
		pthread_mutex_lock(&held[offset / SLOT]);
	else
		pthread_mutex_unlock(&held[offset / SLOT]);
}

static inline bool alone(void)
{
	return !children;
}

static pthread_mutex_t standing = PTHREAD_MUTEX_INITIALIZER;

static inline void still(bool on)
{
	if (on)
		pthread_mutex_lock(&standing);
	else
		pthread_mutex_unlock(&standing);
}

static inline void grown(void)
{
	times_grown++;
}

static inline void scattered(void)
{
	times_scattered++;
}

/* What the store is told, but for redundancy. */
static inline void live_options(struct scene *s, const char *const *uri, unsigned n, bool encrypt,
				const char *inject)
{
	children = false;
	for (unsigned i = 0; i < 64; i++) {
		unused[i] = false;
		pthread_mutex_init(&held[i], NULL);
	}
	*s = (struct scene){ .opt = {
				 .uri = uri,
				 .nuri = n,
				 .stripe_unit = 512 * KIB,
				 .timeout_ms = 4000,
				 .rebuild_rate = rate,
				 .encrypt = encrypt,
				 .inject = inject,
				 .run_dir = run_dir,
				 .live = true,
				 .hold = hold,
				 .release = release,
				 .alone = alone,
				 .still = still,
				 .grown = grown,
				 .scattered = scattered,
			     } };
	times_grown = times_scattered = 0;
}

static inline int change(struct scene *s, bool drain, const char *uri, unsigned *index, char *text)
{
	uint64_t limit = now_ms() + LIMIT_MS;
	int rc = 0;

	assert_true(store_change_ask(&s->st, drain, uri));
	assert_false(store_change_ask(&s->st, drain, uri));
	scene_wake(s);
	while (!store_change_answer(&s->st, &rc, index, text, 512)) {
		if (now_ms() > limit)
			fail_msg("no answer");
		usleep(1000);
	}
	assert_null(strchr(text, '\n'));
	return rc;
}

static inline unsigned done(struct scene *s, bool drain, const char *uri)
{
	char text[512];
	unsigned index = 99;
	int rc = change(s, drain, uri, &index, text);

	if (rc)
		fail_msg("%s: %s (%d)", uri, text, rc);
	return index;
}

static inline void refused(struct scene *s, bool drain, const char *uri, int want,
			   const char *words)
{
	char text[512];
	unsigned index;
	int rc = change(s, drain, uri, &index, text);

	if (rc != want || !strstr(text, words))
		fail_msg("%s: %d '%s', expected %d '%s'", uri, rc, text, want, words);
}

/* A poll of its queue now and then, as by a thread that does little. */
static inline void wait_state(struct scene *s, unsigned i, uint32_t state)
{
	uint64_t limit = now_ms() + LIMIT_MS;

	while (atomic_load(&s->stats[i].state) != state) {
		if (now_ms() > limit)
			fail_msg("store %u is in state %u, not %u; %llu bytes left", i,
				 s->stats[i].state, state,
				 (unsigned long long)s->stats[i].rebuild_bytes);
		s->q->ops->poll(s->q);
		usleep(1000);
	}
}

/* Of odd lengths, so that clusters and columns are written in part. */
static inline size_t length_of(unsigned slot)
{
	return SLOT - slot % 5 * 93 * PAGE;
}

static inline int put(struct scene *s, unsigned slot, unsigned version)
{
	fill(s->buf, SLOT, slot + version * 1000);
	return transfer(s->q, EMF_WRITE, (uint64_t)slot * SLOT, length_of(slot), s->buf);
}

static inline void expect(struct scene *s, unsigned slot, unsigned version)
{
	fill(s->buf, SLOT, slot + version * 1000);
	memset(s->back, 0, SLOT);
	assert_int_equal(transfer(s->q, EMF_READ, (uint64_t)slot * SLOT, length_of(slot), s->back),
			 0);
	assert_memory_equal(s->buf, s->back, length_of(slot));
}

static inline void put_all(struct scene *s, unsigned version)
{
	for (unsigned i = 0; i < SLOTS; i++)
		assert_int_equal(put(s, i, version), 0);
}

static inline void expect_all(struct scene *s, unsigned version)
{
	for (unsigned i = 0; i < SLOTS; i++)
		expect(s, i, version);
}

static inline void wait_left(struct scene *s, unsigned i)
{
	uint64_t limit = now_ms() + LIMIT_MS;
	bool there = true;

	while (there) {
		if (now_ms() > limit)
			fail_msg("store %u is not let go of", i);
		s->q->ops->poll(s->q);
		usleep(1000);
		still(true);
		there = s->st.leaf[i];
		still(false);
	}
}

#endif
