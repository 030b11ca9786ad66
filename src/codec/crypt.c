/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-256-GCM by libcrypto, a copy of our own (codec.h).
 *
 * All memory that holds the key, as it is or expanded in a cipher context, is one
 * area that is locked and not dumped. libcrypto allocates through the functions
 * below: what it asks for while a context is made and keyed comes from that area,
 * the rest (tables of algorithms, once) from malloc. The key itself is wiped as
 * soon as the contexts have it. Afterwards a transfer only sets a nonce, which
 * allocates nothing; `allocations` lets a test see that.
 *
 * Raw system calls, because the preloaded library interposes mlock and the like.
 */
#define _GNU_SOURCE 1 /* syscall */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "codec.h"

#define KEY 32u
#define AREA_PER_CONTEXT 4096u /* 3 of libcrypto 3.0's objects, 1.2 KiB together */
#define ALIGN 64u

struct aead {
	char *area;
	size_t size, used;
	unsigned n;
	EVP_CIPHER *cipher;
	EVP_CIPHER_CTX *context[];
};

static _Atomic unsigned allocated;
/* Where allocations come from meanwhile: set by open, whose callers are one at a time. */
static struct aead *keying;
/* All areas end to end would be a list; one store is open in a process, tests have some more. */
#define AREAS 32
static struct {
	char *start, *end;
} area[AREAS];

static bool is_secret(const void *p)
{
	const char *c = p;

	for (unsigned i = 0; i < AREAS; i++)
		if (area[i].start && c >= area[i].start && c < area[i].end)
			return true;
	return false;
}

/* Each piece is preceded by its size. */
static void *secret_alloc(struct aead *a, size_t size)
{
	size_t need = (size + 2 * ALIGN - 1) & ~(size_t)(ALIGN - 1);
	char *p = a->area + a->used;

	if (need < size || need > a->size - a->used)
		return NULL;
	a->used += need;
	memcpy(p, &size, sizeof(size));
	return p + ALIGN;
}

static size_t secret_size(const void *p)
{
	size_t size;

	memcpy(&size, (const char *)p - ALIGN, sizeof(size));
	return size;
}

static void *get(size_t size, const char *file, int line)
{
	(void)file;
	(void)line;
	atomic_fetch_add_explicit(&allocated, 1, memory_order_relaxed);
	return keying ? secret_alloc(keying, size) : malloc(size);
}

static void put(void *p, const char *file, int line)
{
	(void)file;
	(void)line;
	if (p && is_secret(p))
		explicit_bzero(p, secret_size(p)); /* the area goes as a whole */
	else
		free(p);
}

static void *resize(void *p, size_t size, const char *file, int line)
{
	void *to;

	if (!p || !is_secret(p)) {
		atomic_fetch_add_explicit(&allocated, 1, memory_order_relaxed);
		return realloc(p, size);
	}
	to = get(size, file, line);
	if (!to)
		return NULL;
	memcpy(to, p, secret_size(p) < size ? secret_size(p) : size);
	put(p, file, line);
	return to;
}

static int start_library(void)
{
	static bool started;

	if (started)
		return 0;
	if (!CRYPTO_set_mem_functions(get, resize, put))
		return -ENOTSUP;
	/* No handler at exit: the runtime's threads go on until the process is gone. */
	if (!OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT | OPENSSL_INIT_NO_LOAD_CONFIG |
				     OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS,
				 NULL))
		return -ENOMEM;
	started = true;
	return 0;
}

static int lock_area(struct aead *a)
{
	if (syscall(SYS_mlock, a->area, a->size) ||
	    syscall(SYS_madvise, a->area, a->size, MADV_DONTDUMP))
		return -errno;
	return 0;
}

static int map_area(struct aead *a, unsigned contexts)
{
	unsigned slot = 0;
	long at;

	while (slot < AREAS && area[slot].start)
		slot++;
	if (slot == AREAS)
		return -EMFILE;
	a->size = ((size_t)contexts * AREA_PER_CONTEXT + 2 * 4096u - 1) & ~(size_t)4095;
	at = syscall(SYS_mmap, NULL, a->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0L);
	if (at == -1)
		return -errno;
	a->area = (char *)at;
	area[slot].start = a->area;
	area[slot].end = a->area + a->size;
	return lock_area(a);
}

static void crypt_close(struct aead *a)
{
	for (unsigned i = 0; i < a->n; i++)
		EVP_CIPHER_CTX_free(a->context[i]);
	EVP_CIPHER_free(a->cipher);
	if (a->area) {
		explicit_bzero(a->area, a->size);
		for (unsigned i = 0; i < AREAS; i++)
			if (area[i].start == a->area)
				area[i].start = NULL;
		syscall(SYS_munmap, a->area, a->size);
	}
	free(a);
}

static void crypt_forget(struct aead *a)
{
	explicit_bzero(a->area, a->size);
}

static int make_contexts(struct aead *a, unsigned n)
{
	char *key = secret_alloc(a, KEY);
	bool ok;

	if (!key || getrandom(key, KEY, 0) != KEY)
		return key ? -EIO : -ENOMEM;
	keying = a;
	for (ok = true; ok && a->n < n; a->n += ok) {
		EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();

		ok = c && EVP_CipherInit_ex(c, a->cipher, NULL, (unsigned char *)key, NULL, 1);
		a->context[a->n] = c;
		if (!ok)
			EVP_CIPHER_CTX_free(c);
	}
	keying = NULL;
	explicit_bzero(key, KEY);
	return ok ? 0 : -ENOMEM;
}

static int crypt_open(unsigned contexts, struct aead **out, char *err, size_t errlen)
{
	struct aead *a = calloc(1, sizeof(*a) + contexts * sizeof(a->context[0]));
	int rc = start_library();

	if (!a)
		rc = -ENOMEM;
	if (!rc) {
		a->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
		rc = a->cipher ? map_area(a, contexts) : -ENOTSUP;
	}
	if (rc == -ENOMEM || rc == -EPERM || rc == -EAGAIN)
		snprintf(err, errlen,
			 "cannot lock %zu KiB of memory for the key: %s; raise ulimit -l",
			 a ? a->size >> 10 : 0, strerror(-rc));
	else if (rc)
		snprintf(err, errlen, "cannot start libcrypto: %s", strerror(-rc));
	if (!rc) {
		rc = make_contexts(a, contexts);
		if (rc)
			snprintf(err, errlen, "libcrypto cannot make a cipher: %s", strerror(-rc));
	}
	if (rc && a)
		crypt_close(a);
	if (!rc)
		*out = a;
	return rc;
}

/* The nonce, and what the cluster is bound to. False: a bug, or libcrypto's. */
static bool begin(EVP_CIPHER_CTX *c, int sealing, const uint8_t *nonce, const void *bound,
		  size_t bound_length)
{
	int n;

	return EVP_CipherInit_ex(c, NULL, NULL, NULL, nonce, sealing) &&
	       EVP_CipherUpdate(c, NULL, &n, bound, (int)bound_length);
}

static int crypt_seal(struct aead *a, unsigned context, const uint8_t nonce[AEAD_NONCE],
		      const void *bound, size_t bound_length, void *to, const void *from,
		      size_t length, uint8_t tag[AEAD_TAG])
{
	EVP_CIPHER_CTX *c = a->context[context];
	int n;

	if (!begin(c, 1, nonce, bound, bound_length) ||
	    !EVP_CipherUpdate(c, to, &n, from, (int)length) ||
	    !EVP_CipherFinal_ex(c, (unsigned char *)to + n, &n) ||
	    !EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG, tag))
		return -EIO;
	return 0;
}

static int crypt_unseal(struct aead *a, unsigned context, const uint8_t nonce[AEAD_NONCE],
			const void *bound, size_t bound_length, void *buf, size_t length,
			const uint8_t tag[AEAD_TAG])
{
	EVP_CIPHER_CTX *c = a->context[context];
	uint8_t want[AEAD_TAG];
	int n;

	memcpy(want, tag, sizeof(want));
	if (!begin(c, 0, nonce, bound, bound_length) ||
	    !EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG, want) ||
	    !EVP_CipherUpdate(c, buf, &n, buf, (int)length))
		return -EIO;
	return EVP_CipherFinal_ex(c, (unsigned char *)buf + n, &n) ? 0 : -EBADMSG;
}

static unsigned crypt_allocations(void)
{
	return atomic_load(&allocated);
}

__attribute__((visibility("default"))) const struct emf_aead emf_aead = {
	.abi = EMF_CODEC_ABI,
	.open = crypt_open,
	.forked = lock_area,
	.close = crypt_close,
	.forget = crypt_forget,
	.seal = crypt_seal,
	.unseal = crypt_unseal,
	.allocations = crypt_allocations,
};
