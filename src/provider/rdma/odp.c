/* SPDX-License-Identifier: Apache-2.0 */
#include "odp.h"

#include <errno.h>

#include "cm.h"

/* A table of 2 MiB in the kernel. */
#define WINDOW ((size_t)256 << 20)

static bool card_can(struct ibv_context *card)
{
	const uint32_t both = IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_WRITE;
	struct ibv_device_attr_ex attr = { 0 };

	return !ibv_query_device_ex(card, NULL, &attr) &&
	       attr.odp_caps.general_caps & IBV_ODP_SUPPORT &&
	       (attr.odp_caps.per_transport_caps.rc_odp_caps & both) == both;
}

void odp_open(struct odp *o, struct ibv_pd *pd, const void *base, size_t bytes)
{
	*o = (struct odp){ .base = (uintptr_t)base, .bytes = bytes, .window = WINDOW };
	while (bytes / o->window >= ODP_WINDOWS)
		o->window *= 2;
	if (bytes && card_can(pd->context))
		o->pd = pd;
}

static struct ibv_mr *window(struct odp *o, size_t i)
{
	size_t at = i * o->window, left = o->bytes - at;

	if (!o->mr[i])
		o->mr[i] =
		    cm.reg_mr(o->pd, (void *)(o->base + at), left < o->window ? left : o->window,
			      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND);
	return o->mr[i];
}

bool odp_key(struct odp *o, const void *buf, uint32_t length, bool lands, uint32_t *key)
{
	size_t at = (uintptr_t)buf - o->base;
	struct ibv_sge sge = { .addr = (uintptr_t)buf, .length = length };
	struct ibv_mr *mr;
	int rc;

	/* Below the base it is beyond the end, too. */
	if (!o->pd || at >= o->bytes || length > o->bytes - at ||
	    at / o->window != (at + length - 1) / o->window)
		return false;
	mr = window(o, at / o->window);
	if (!mr) {
		/* What there is goes on; no more is tried. */
		o->pd = NULL;
		return false;
	}
	*key = sge.lkey = mr->lkey;
	if (o->asks)
		return true;
	/* A fault of the card's own, in the middle of a transfer, costs far more. */
	rc = ibv_advise_mr(
	    o->pd, lands ? IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE : IBV_ADVISE_MR_ADVICE_PREFETCH,
	    IBV_ADVISE_MR_FLAG_FLUSH, &sge, 1);
	o->asks = rc == EOPNOTSUPP || rc == ENOSYS;
	return !rc || o->asks;
}

void odp_close(struct odp *o)
{
	for (size_t i = 0; i < ODP_WINDOWS; i++)
		if (o->mr[i])
			cm.dereg_mr(o->mr[i]);
	*o = (struct odp){ 0 };
}
