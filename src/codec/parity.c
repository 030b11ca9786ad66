/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reed-Solomon over GF(2^8) by isa-l (codec.h), with a Cauchy matrix: any k of the
 * k + m columns determine the others. A prepared coder is isa-l's table of products,
 * 32 bytes for each coefficient. isa-l has neither state nor locks.
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

static void matrix(unsigned k, unsigned m, unsigned char *a)
{
	gf_gen_cauchy1_matrix(a, (int)(k + m), (int)k);
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
	if (gf_invert_matrix(have, inverse, (int)k))
		return -EINVAL;
	/* data = inverse * have; column `want` is its row of the matrix times data. */
	for (unsigned i = 0; i < k; i++) {
		row[i] = 0;
		for (unsigned j = 0; j < k; j++)
			row[i] ^= gf_mul(a[want * k + j], inverse[j * k + i]);
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
