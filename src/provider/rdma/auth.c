/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* secure_getenv */
#include "auth.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static int refuse(char *err, size_t errlen, int rc, const char *why)
{
	snprintf(err, errlen, "%s", why);
	return rc;
}

/*
 * One that systemd hands to this service (LoadCredential=), in a directory that nobody else can
 * enter. From systemd 254 on an access control list lets a service's user read it, whose mask shows
 * as the group's mode.
 */
static bool is_credential(const char *path)
{
	const char *dir = secure_getenv("CREDENTIALS_DIRECTORY");
	size_t n = dir ? strlen(dir) : 0;

	return n > 1 && !strncmp(path, dir, n) && path[n] == '/' && !strchr(path + n + 1, '/');
}

static int check_file(int fd, mode_t allowed, char *err, size_t errlen)
{
	struct stat st;

	if (fstat(fd, &st))
		return refuse(err, errlen, -errno, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return refuse(err, errlen, -EINVAL, "is not a plain file");
	if (st.st_mode & 077 & ~allowed)
		return refuse(err, errlen, -EPERM,
			      "can be read by others than its owner; chmod 600 it");
	return 0;
}

int auth_read(const char *path, struct secret *out, char *err, size_t errlen)
{
	/* What a FIFO would block on is refused by its kind. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), rc;
	size_t n = 0;
	uint8_t *end;

	*out = (struct secret){ 0 };
	if (fd < 0)
		return refuse(err, errlen, -errno, strerror(errno));
	rc = check_file(fd, is_credential(path) ? 040 : 0, err, errlen);
	if (!rc) {
		ssize_t got = read(fd, out->bytes, sizeof(out->bytes));

		if (got < 0)
			rc = refuse(err, errlen, -errno, strerror(errno));
		else
			n = (size_t)got;
	}
	close(fd);
	if (rc)
		return rc;
	end = memchr(out->bytes, '\n', n);
	out->length = end ? (size_t)(end - out->bytes) : n;
	OPENSSL_cleanse(out->bytes + out->length, sizeof(out->bytes) - out->length);
	if (!end && n == sizeof(out->bytes))
		rc = refuse(err, errlen, -EINVAL, "has a longer first line than 1023 bytes");
	else if (out->length < AUTH_MIN)
		rc = refuse(err, errlen, -EINVAL,
			    "has a first line of less than 16 bytes, which can be guessed");
	if (rc)
		auth_forget(out);
	return rc;
}

void auth_forget(struct secret *s)
{
	OPENSSL_cleanse(s, sizeof(*s));
}

int auth_nonce(uint8_t *out, size_t length)
{
	/* So few bytes come whole, or the kernel has none yet. */
	return getrandom(out, length, 0) == (ssize_t)length ? 0 : -EIO;
}

int auth_mac(const struct secret *s, enum auth_role role, const uint8_t client[WIRE_NONCE],
	     const uint8_t server[WIRE_NONCE], const char *tenant, uint8_t out[WIRE_MAC])
{
	static const char label[2][24] = { "emfatier rdma 1 client", "emfatier rdma 1 server" };
	uint8_t text[sizeof(label[0]) + 2 * WIRE_NONCE + WIRE_NAME] = { 0 };
	unsigned length = 0;

	memcpy(text, label[role], sizeof(label[0]));
	memcpy(text + sizeof(label[0]), client, WIRE_NONCE);
	memcpy(text + sizeof(label[0]) + WIRE_NONCE, server, WIRE_NONCE);
	memcpy(text + sizeof(label[0]) + 2 * WIRE_NONCE, tenant, strnlen(tenant, WIRE_NAME - 1));
	if (!HMAC(EVP_sha256(), s->bytes, (int)s->length, text, sizeof(text), out, &length))
		return -EIO;
	return length == WIRE_MAC ? 0 : -EIO;
}

bool auth_same(const uint8_t a[WIRE_MAC], const uint8_t b[WIRE_MAC])
{
	return !CRYPTO_memcmp(a, b, WIRE_MAC);
}
