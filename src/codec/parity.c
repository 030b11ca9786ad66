/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reed-Solomon over GF(2^8) by isa-l (codec.h), with a Cauchy matrix: any k of the
 * k + m columns determine the others. A prepared coder is isa-l's table of products,
 * 32 bytes for each coefficient. isa-l has neither state nor locks.
 *
 * Its functions for matrices are not used: they call gf_mul, and where the program has a function
 * of that name (node has, OpenSSL's or another's) they get that one.
 */
#include <errno.h>
#include <isa-l/erasure_code.h>
#include <string.h>

#include "codec.h"

#define MAX PARITY_MAX

static size_t parity_size(unsigned k, unsigned m)
{
	return (size_t)32 * k * (m ? m : 1);
}

/* In the field of isa-l's tables: modulo x^8 + x^4 + x^3 + x^2 + 1. */
static uint8_t times(uint8_t a, uint8_t b)
{
	uint8_t product = 0;

	for (; b; b >>= 1) {
		if (b & 1)
			product ^= a;
		a = (uint8_t)(a << 1 ^ (a >> 7) * 0x1d);
	}
	return product;
}

/* a^254; of 0 it is 0. */
static uint8_t inverse_of(uint8_t a)
{
	uint8_t product = 1;

	for (unsigned i = 0; i < 7; i++) {
		a = times(a, a);
		product = times(product, a);
	}
	return product;
}

/* k + m rows of k: the data as they are, then what makes parity of them. */
static void matrix(unsigned k, unsigned m, unsigned char *a)
{
	for (unsigned i = 0; i < k + m; i++)
		for (unsigned j = 0; j < k; j++)
			*a++ = i < k ? i == j : inverse_of((uint8_t)(i ^ j));
}

/* row a of `of` (rows of n) is multiplied by f, and added to row b; b == a: only multiplied. */
static void add_row(unsigned char *of, unsigned n, unsigned a, uint8_t f, unsigned b)
{
	for (unsigned j = 0; j < n; j++)
		of[b * n + j] = times(of[a * n + j], f) ^ (a == b ? 0 : of[b * n + j]);
}

/* By Gauss and Jordan; a is used up. */
static int invert(unsigned char *a, unsigned char *inverse, unsigned n)
{
	for (unsigned i = 0; i < n * n; i++)
		inverse[i] = i % (n + 1) == 0;
	for (unsigned c = 0; c < n; c++) {
		unsigned pivot = c;

		while (pivot < n && !a[pivot * n + c])
			pivot++;
		if (pivot == n)
			return -EINVAL;
		/* Row c comes to have 1 there: it has 0 where the pivot is another. */
		uint8_t f = inverse_of(a[pivot * n + c]);
		add_row(inverse, n, pivot, f, c);
		add_row(a, n, pivot, f, c);
		for (unsigned i = 0; i < n; i++) {
			f = a[i * n + c];
			if (i == c || !f)
				continue;
			add_row(inverse, n, c, f, i);
			add_row(a, n, c, f, i);
		}
	}
	return 0;
}

static void parity_encoder(unsigned k, unsigned m, void *coder)
{
	unsigned char a[MAX * MAX];

	matrix(k, m, a);
	ec_init_tables((int)k, (int)m, a + k * k, coder);
}

static int parity_decoder(unsigned k, unsigned m, const uint8_t *from, unsigned want, void *coder)
{
	unsigned char a[MAX * MAX], have[MAX * MAX], inverse[MAX * MAX], row[MAX];

	matrix(k, m, a);
	for (unsigned i = 0; i < k; i++)
		memcpy(have + i * k, a + from[i] * k, k);
	if (invert(have, inverse, k))
		return -EINVAL;
	/* data = inverse * have; column `want` is its row of the matrix times data. */
	for (unsigned i = 0; i < k; i++) {
		row[i] = 0;
		for (unsigned j = 0; j < k; j++)
			row[i] ^= times(a[want * k + j], inverse[j * k + i]);
	}
	ec_init_tables((int)k, 1, row, coder);
	return 0;
}

static void parity_run(const void *coder, unsigned k, unsigned n, size_t length, void *const *in,
		       void *const *out)
{
	ec_encode_data((int)length, (int)k, (int)n, (unsigned char *)(uintptr_t)coder,
		       (unsigned char **)(uintptr_t)in, (unsigned char **)(uintptr_t)out);
}

__attribute__((visibility("default"))) const struct emf_parity emf_parity = {
	.abi = EMF_CODEC_ABI,
	.size = parity_size,
	.encoder = parity_encoder,
	.decoder = parity_decoder,
	.run = parity_run,
};
