/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "away.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "block.h"
#include "kernel.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#endif

/* At the same offset in 2 MiB as in the program, so that whole page tables move. */
#define PLACE (2 * BLOCK_SIZE)
static uintptr_t place;

bool away_is_own(uintptr_t addr)
{
	return place && addr >= place && addr - place < PLACE;
}

/* A forked child inherits it, empty. */
static int reserve(void)
{
	if (place)
		return 0;
	long r = k_mmap(NULL, PLACE + BLOCK_SIZE, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r < 0)
		return (int)r;
	place = ((uintptr_t)r + BLOCK_SIZE - 1) & ~(BLOCK_SIZE - 1);
	return 0;
}

/* One mapping (VMA) a call: what is refused as a whole is tried in halves. How far it came. */
static size_t move_away(uintptr_t to, uintptr_t from, size_t len, int *err)
{
	size_t done = 0, chunk = len;

	*err = 0;
	while (done < len) {
		long r =
		    k_mremap((void *)(from + done), chunk, chunk,
			     MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, (void *)(to + done));
		if (r >= 0) {
			done += chunk;
			chunk = len - done;
		} else if (r == -EFAULT && chunk > K_PAGE) {
			chunk = chunk / 2 & ~(size_t)(K_PAGE - 1);
		} else {
			*err = (int)r;
			break;
		}
	}
	return done;
}

/* Never raises a signal; what can't be read is poisoned where it was. */
static void copy_out(const struct uffd *u, char *dst, uintptr_t from, uintptr_t src, size_t len)
{
	struct iovec local = { dst, len }, remote = { (void *)from, len };

	while (local.iov_len) {
		ssize_t n = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
		if (n <= 0) {
			uffd_poison(u, (void *)(src + (len - local.iov_len)), K_PAGE);
			memset(local.iov_base, 0, K_PAGE);
			n = K_PAGE;
		}
		local.iov_base = (char *)local.iov_base + n;
		remote.iov_base = (char *)remote.iov_base + n;
		local.iov_len -= (size_t)n;
		remote.iov_len -= (size_t)n;
	}
}

int away_take(const struct uffd *u, void *dst, void *src, size_t len, struct taken *out)
{
	uintptr_t from = (uintptr_t)src;
	struct presence found;
	int err = reserve();

	*out = (struct taken){ 0, false };
	/* Refused where the memory is locked, which mremap would unlock. */
	if (!err)
		err = k_madvise(src, len, MADV_COLD);
	if (err)
		return err;
	uintptr_t at = place + (from & (BLOCK_SIZE - 1));
	size_t done = move_away(at, from, len, &err);
	if (done) {
		uffd_unregister(u, (void *)at, done);
		out->holes = uffd_presence(u, (void *)at, done, &found) || found.bytes < done;
		k_syscall(SYS_mprotect, (long)at, (long)done, PROT_READ, 0, 0, 0);
		copy_out(u, dst, at, from, done);
		k_mmap((void *)place, PLACE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	}
	out->taken = done;
	return err;
}
