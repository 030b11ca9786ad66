/* SPDX-License-Identifier: Apache-2.0 */
#include "show.h"

uint64_t hist_quantile(const struct emf_hist *h, double share)
{
	uint64_t total = 0, seen = 0, max = h->max, want;

	for (unsigned i = 0; i < EMF_STATS_BUCKETS; i++)
		total += h->bucket[i];
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
