/* SPDX-License-Identifier: Apache-2.0 */
#include "show.h"

uint64_t hist_total(const struct emf_hist *h)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < EMF_STATS_BUCKETS; i++)
		total += h->bucket[i];
	return total;
}

void hist_since(const struct emf_hist *h, const struct emf_hist *before, struct emf_hist *out)
{
	out->max = 0;
	for (unsigned i = 0; i < EMF_STATS_BUCKETS; i++) {
		uint64_t now = h->bucket[i], was = before->bucket[i];

		out->bucket[i] = now >= was ? now - was : now;
		if (out->bucket[i])
			out->max = i + 1 < EMF_STATS_BUCKETS ? emf_hist_floor(i + 1) - 1 : h->max;
	}
	if (out->max > h->max)
		out->max = (uint64_t)h->max;
}

uint64_t hist_quantile(const struct emf_hist *h, double share)
{
	uint64_t total = hist_total(h), seen = 0, max = h->max, want;

	if (!total)
		return 0;
	want = (uint64_t)((double)total * share);
	if ((double)want < (double)total * share || !want)
		want++; /* rounded up: the median of one value is that value */
	for (unsigned i = 0; i < EMF_STATS_BUCKETS - 1; i++) {
		uint64_t edge;

		seen += h->bucket[i];
		if (seen < want)
			continue;
		edge = emf_hist_floor(i + 1) - 1;
		/* max is written after its bucket, so it may still be behind */
		return max && edge > max ? max : edge;
	}
	return max;
}
