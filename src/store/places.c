/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What there is of members, and of places on them, and who has which: under the transfers of a
 * pool and of a redundant set alike.
 */
#define _GNU_SOURCE 1 /* syscall */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory.h"
#include "pool_int.h"
#include "ready.h"
#include "reconnect.h"
#include "timer.h"

/* So many times what there is at the start, or so many slots: that much room there can be. */
#define GROWS 4u
#define SLOTS_AT_LEAST 32768u /* 64 GiB: tables of less are not worth a thought */

/* --- places --- */

bool pool_claim_at(struct pool *p, unsigned member, uint32_t index)
{
	struct member *m = &p->member[member];
	uint64_t bit = 1ull << index % 64;

	if (index >= m->units || atomic_fetch_or(&m->taken[index / 64], bit) & bit)
		return false;
	atomic_fetch_add(&p->shared->used[member], 1);
	return true;
}

uint32_t pool_claim(struct pool *p, unsigned member)
{
	struct member *m = &p->member[member];
	uint32_t words = (m->units + 63) / 64, hand = atomic_load(&p->shared->hand[member]);

	if (atomic_load(&p->shared->used[member]) >= m->units)
		return 0;
	for (uint32_t i = 0; i < words; i++) {
		uint32_t at = (hand + i) % words;
		uint64_t bits = atomic_load(&m->taken[at]);

		while (~bits) {
			uint32_t index = at * 64 + (unsigned)__builtin_ctzll(~bits);

			if (index >= m->units)
				break;
			if (pool_claim_at(p, member, index)) {
				atomic_store(&p->shared->hand[member], at);
				return PLACE(member, index);
			}
			bits = atomic_load(&m->taken[at]);
		}
	}
	return 0;
}

void pool_release(struct pool *p, uint32_t place)
{
	unsigned member = PLACE_MEMBER(place);
	uint32_t index = PLACE_INDEX(place);

	atomic_fetch_and(&p->member[member].taken[index / 64], ~(1ull << index % 64));
	atomic_fetch_sub(&p->shared->used[member], 1);
}

unsigned pool_share(const struct pool *p, unsigned member, uint64_t now)
{
	const struct member *m = &p->member[member];
	uint64_t age = now > m->since ? now - m->since : 0;

	if (!m->since || age >= RAMP_NS)
		return RAMP_STEPS;
	return 1 + (unsigned)(age * (RAMP_STEPS - 1) / RAMP_NS);
}

/* --- queues of members --- */

/* One queue more of it, or one less: for as long as there are any it is not let go of. */
static void leave_member(struct pool *p, unsigned i)
{
	atomic_fetch_sub(&p->member[i].queues, 1);
	signal_raise(p->o.wake_fd);
}

/* False: it is none, or is left meanwhile. */
static bool enter_member(struct pool *p, unsigned i)
{
	atomic_fetch_add(&p->member[i].queues, 1);
	if (!pool_is_state(p, i, MEMBER_NONE) && !pool_is_state(p, i, MEMBER_LEAVING))
		return true;
	leave_member(p, i);
	return false;
}

int pool_open_queues(struct pool *p, struct pool_queues *pq, struct emf_queue **member)
{
	uint32_t n = atomic_load(&p->n);
	unsigned away = 0;
	int rc = 0;

	pq->generation = atomic_load(&p->generation);
	for (unsigned i = 0; i < n && !rc; i++) {
		struct member *m = &p->member[i];

		if (!enter_member(p, i))
			continue;
		rc = m->be->ops->queue_open(m->be, pq->kind, pq->depth, &member[i]);
		/* It may have been away for long, as when a child is forked. */
		if (rc && p->kind && away++ < p->o.m)
			rc = reconnect_queue_later(m->be, pq->kind, pq->depth, &member[i]);
		if (!rc)
			continue;
		member[i] = NULL;
		leave_member(p, i);
	}
	return rc;
}

void pool_leave_queues(struct pool *p, struct emf_queue *const *member)
{
	for (unsigned i = 0; i < STORE_LEAVES; i++)
		if (member[i])
			leave_member(p, i);
}

void pool_see_members(struct pool *p, struct pool_queues *pq, struct emf_queue **member,
		      const struct io_list *waiting, bool may_close)
{
	uint32_t generation = atomic_load(&p->generation), n = atomic_load(&p->n);
	bool all = true;

	if (generation == pq->generation)
		return;
	for (unsigned i = 0; i < n; i++) {
		struct emf_queue **mq = &member[i];

		if (*mq && pool_is_state(p, i, MEMBER_LEAVING)) {
			if (!may_close || (*mq)->inflight || waiting[i].head) {
				all = false;
				continue;
			}
			(*mq)->ops->close(*mq);
			*mq = NULL;
			leave_member(p, i);
		} else if (!*mq && enter_member(p, i) &&
			   reconnect_queue_later(p->member[i].be, pq->kind, pq->depth, mq)) {
			*mq = NULL;
			leave_member(p, i);
			all = false;
		}
	}
	if (all)
		pq->generation = generation;
}

/* --- tables --- */

static uint64_t words(uint32_t units)
{
	return units / 64 + 1;
}

static int set_member(struct pool *p, unsigned i, struct emf_backend *be, enum member_state state)
{
	struct member *m = &p->member[i];
	uint64_t units = be->size / p->unit, most = 1u << PLACE_SHIFT;
	uint32_t n = atomic_load(&p->n);

	m->units = (uint32_t)(units < most ? units : most - 1);
	m->taken = store_table(words(m->units), sizeof(uint64_t), MAP_SHARED);
	if (!m->taken)
		return -ENOMEM;
	m->be = be;
	m->since = state == MEMBER_FILLING ? timer_now() : 0;
	m->speed = (struct speed){ 0 };
	atomic_store(&m->weight, POOL_WEIGHT);
	atomic_store(&m->queues, 0);
	atomic_store(&p->shared->used[i], 0);
	atomic_store(&p->shared->hand[i], 0);
	atomic_store(&m->state, (uint32_t)state);
	if (n <= i)
		atomic_store(&p->n, i + 1);
	return 0;
}

int pool_init(struct pool *p, struct emf_backend *const *member, unsigned n)
{
	int rc;

	p->shared = store_table(1, sizeof(*p->shared), MAP_SHARED);
	p->place = store_table(p->slots * p->columns, sizeof(*p->place), MAP_SHARED);
	p->users = store_table(p->slots, sizeof(*p->users), MAP_PRIVATE);
	p->ready_fd = ready_open();
	if (!p->shared || !p->place || !p->users)
		return -ENOMEM;
	rc = p->ready_fd < 0 ? p->ready_fd : 0;
	for (unsigned i = 0; i < n && !rc; i++)
		rc = set_member(p, i, member[i], MEMBER_USED);
	return rc;
}

void pool_end(struct pool *p)
{
	resettle_end(p);
	for (unsigned i = 0; i < STORE_LEAVES; i++)
		store_untable(p->member[i].taken, words(p->member[i].units), sizeof(uint64_t));
	store_untable(p->shared, 1, sizeof(*p->shared));
	store_untable(p->place, p->slots * p->columns, sizeof(*p->place));
	store_untable(p->users, p->slots, sizeof(*p->users));
	if (p->ready_fd >= 0)
		close(p->ready_fd);
}

int pool_go_on(struct pool *p)
{
	uint64_t high = atomic_load(&p->shared->high);

	/* Who was at it in the parent is not in the child; nor are its queues and its moves. */
	for (uint64_t s = 0; s < high; s++)
		if (atomic_load(&p->users[s]))
			atomic_store(&p->users[s], 0);
	for (unsigned i = 0; i < STORE_LEAVES; i++)
		p->member[i].queues = p->member[i].behind = 0;
	p->resettle = NULL;
	pool_weigh_anew(p);
	p->ready_fd = ready_open();
	return p->ready_fd < 0 ? p->ready_fd : 0;
}

uint64_t pool_slots_ever(uint64_t now)
{
	return now * GROWS < SLOTS_AT_LEAST ? SLOTS_AT_LEAST : now * GROWS;
}

void pool_note_high(struct pool *p, uint64_t slot)
{
	uint64_t high = atomic_load(&p->shared->high);

	while (high <= slot && !atomic_compare_exchange_weak(&p->shared->high, &high, slot + 1))
		;
}

/* --- members --- */

uint64_t pool_used(const struct emf_backend *be, unsigned member)
{
	const struct pool *p = (const struct pool *)be;

	return atomic_load(&p->shared->used[member]) * p->unit;
}

/* So many units, or so many that are free, on what may be written to. */
static uint64_t sum_units(const struct pool *p, unsigned but, bool free)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < atomic_load(&p->n); i++) {
		uint32_t used = free ? atomic_load(&p->shared->used[i]) : 0;

		if (i != but && used < p->member[i].units && pool_is_open(p, i))
			sum += p->member[i].units - used;
	}
	return sum;
}

/* For how many slots there is room on all but one, of which each needs so many members. */
static uint64_t redundant_slots(const struct pool *p, unsigned but)
{
	uint64_t slots = UINT64_MAX, most;

	do {
		uint64_t sum = 0;

		most = slots;
		for (unsigned i = 0; i < atomic_load(&p->n); i++) {
			if (i == but || !pool_is_open(p, i))
				continue;
			sum += p->member[i].units < most ? p->member[i].units : most;
		}
		slots = sum / p->columns;
	} while (slots < most);
	return slots;
}

/* Are there as many others as a slot needs? */
static bool has_others(const struct pool *p, unsigned but)
{
	unsigned n = 0;

	for (unsigned i = 0; i < atomic_load(&p->n); i++)
		if (i != but && pool_is_open(p, i))
			n++;
	return n >= (p->kind ? p->columns : 1);
}

/* Of a redundant set as much as finds partners. */
uint64_t pool_free(const struct emf_backend *be, unsigned but)
{
	const struct pool *p = (const struct pool *)be;
	uint64_t free = sum_units(p, but, true), room, used = 0;

	if (p->kind) {
		room = redundant_slots(p, but) * p->columns;
		for (unsigned i = 0; i < atomic_load(&p->n); i++)
			if (i != but)
				used += atomic_load(&p->shared->used[i]);
		free = room < used ? 0 : room - used < free ? room - used : free;
	}
	return free * p->unit;
}

bool pool_is_scattered(const struct emf_backend *be)
{
	return atomic_load(&((const struct pool *)be)->shared->changed);
}

uint64_t pool_capacity(const struct emf_backend *be)
{
	const struct pool *p = (const struct pool *)be;
	uint64_t slots = p->kind ? redundant_slots(p, STORE_LEAVES)
				 : sum_units(p, STORE_LEAVES, false) / p->columns;

	if (!atomic_load(&p->shared->changed))
		slots = p->homes;
	return (slots < p->slots ? slots : p->slots) * SLOT;
}

/* So that who has asked for it sees it at once. */
static void tell(struct pool *p, unsigned i, enum emf_store_state state)
{
	if (p->o.stats && atomic_load(&p->o.stats[i].state) != EMF_STORE_DOWN)
		atomic_store(&p->o.stats[i].state, state);
	atomic_fetch_add(&p->generation, 1);
	signal_raise(p->o.wake_fd);
}

/* From here on nothing need be at home. */
static void scatter(struct pool *p)
{
	if (p->o.scattered)
		p->o.scattered();
	atomic_store(&p->shared->changed, 1);
}

int pool_add(struct emf_backend *be, unsigned i, struct emf_backend *member)
{
	struct pool *p = (struct pool *)be;
	int rc;

	if (!pool_is_state(p, i, MEMBER_NONE))
		return -EBUSY;
	/* Whoever is above does not wait for what it was told needs no waiting. */
	if (p->be.caps & EMF_CAP_SYNC && !(member->caps & EMF_CAP_SYNC))
		return -ENOTSUP;
	if (member->size < p->unit)
		return -ENOSPC;
	scatter(p);
	if (p->kind)
		reconnect_set_rebuilt(member);
	rc = set_member(p, i, member, MEMBER_FILLING);
	if (rc)
		return rc;
	tell(p, i, EMF_STORE_REBUILDING);
	return 0;
}

int pool_drain(struct emf_backend *be, unsigned i)
{
	struct pool *p = (struct pool *)be;

	if (!pool_is_open(p, i))
		return -EALREADY;
	if (!has_others(p, i))
		return -ENODEV;
	if (!p->kind && reconnect_is_down(p->member[i].be) && reconnect_is_failing(p->member[i].be))
		return -ENOTCONN;
	if (pool_free(be, i) < pool_used(be, i))
		return -ENOSPC;
	p->member[i].again = false;
	scatter(p);
	atomic_store(&p->member[i].state, MEMBER_DRAINING);
	tell(p, i, EMF_STORE_DRAINING);
	return 0;
}

bool pool_is_leaving(const struct emf_backend *be, unsigned i)
{
	return pool_is_state((const struct pool *)be, i, MEMBER_LEAVING);
}

bool pool_has_left(const struct emf_backend *be, unsigned i)
{
	const struct pool *p = (const struct pool *)be;

	return pool_is_state(p, i, MEMBER_LEAVING) && !atomic_load(&p->member[i].queues) &&
	       (p->member[i].again || !atomic_load(&p->shared->used[i]));
}

void pool_remove(struct emf_backend *be, unsigned i)
{
	struct pool *p = (struct pool *)be;
	struct member *m = &p->member[i];

	atomic_store(&m->state, MEMBER_NONE);
	store_untable(m->taken, words(m->units), sizeof(uint64_t));
	m->taken = NULL;
	m->be = NULL;
	m->units = 0;
	m->again = false;
}
