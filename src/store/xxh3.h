/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XXH3-64, compiled twice: for any CPU of the architecture (8-10 GB/s measured on
 * x86-64) and for AVX2 (25 GB/s and more). Same result. Any thread; blocks never.
 */
#ifndef EMF_XXH3_H
#define EMF_XXH3_H

#include <stddef.h>
#include <stdint.h>

uint64_t xxh3_base(const void *buf, size_t length);
#ifdef __x86_64__
uint64_t xxh3_avx2(const void *buf, size_t length);
#endif

#endif
