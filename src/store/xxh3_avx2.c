/* SPDX-License-Identifier: Apache-2.0 */
/* Called only where __builtin_cpu_supports("avx2"). */
#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#include <immintrin.h>

#define XXH_VECTOR 2 /* XXH_AVX2: clang's attribute defines no __AVX2__ to find it by */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "xxh3.h"

uint64_t xxh3_avx2(const void *buf, size_t length)
{
	return XXH3_64bits(buf, length);
}
#ifdef __clang__
#pragma clang attribute pop
#endif
#else
typedef int xxh3_avx2_is_for_x86; /* a translation unit may not be empty */
#endif
