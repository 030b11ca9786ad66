/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for libibverbs, libcudart and liburing (tests/whole/dma.sh gives each part the
 * real one's name and versions). Registers nothing: what must be seen is that the memory
 * stays where it is all the same. Refuses five pages.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define REFUSED(len) ((len) == 5 * 4096)

#ifdef VERBS
void *ibv_reg_mr(void *pd, void *addr, size_t len, int access)
{
	(void)pd, (void)addr, (void)access;
	if (!REFUSED(len))
		return malloc(64);
	errno = EINVAL;
	return NULL;
}

void *ibv_reg_mr_iova(void *pd, void *addr, size_t len, uint64_t iova, int access)
{
	return iova == (uintptr_t)addr ? ibv_reg_mr(pd, addr, len, access) : NULL;
}

void *ibv_reg_mr_iova2(void *pd, void *addr, size_t len, uint64_t iova, unsigned access)
{
	return ibv_reg_mr_iova(pd, addr, len, iova, (int)access);
}

int ibv_dereg_mr(void *mr)
{
	free(mr);
	return 0;
}
#endif

#ifdef CUDART
int cudaHostRegister(void *p, size_t len, unsigned flags)
{
	(void)p, (void)flags;
	return REFUSED(len) ? 1 : 0;
}

int cudaHostUnregister(void *p)
{
	return p ? 0 : 1;
}
#endif

#ifdef MODULE
/* A module that was linked against libibverbs, opened by a program that was not. */
void *ibv_reg_mr(void *pd, void *addr, size_t len, int access);
int ibv_dereg_mr(void *mr);
void *module_register(void *addr, size_t len);
int module_unregister(void *mr);

void *module_register(void *addr, size_t len)
{
	return ibv_reg_mr(NULL, addr, len, 1);
}

int module_unregister(void *mr)
{
	return ibv_dereg_mr(mr);
}
#endif
