/* SPDX-License-Identifier: Apache-2.0 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "xxh3.h"

uint64_t xxh3_base(const void *buf, size_t length)
{
	return XXH3_64bits(buf, length);
}
