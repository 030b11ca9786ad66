/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* dladdr, memfd_create */
#include "cm.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIBRARY "librdmacm.so.1"
#define VERBS "libibverbs.so.1"

struct cm cm;
static pid_t loaded_by; /* 0: nobody yet */

/* From a file that the linker has not seen. The thread's descriptors may not be the process's. */
static void *load_copy(const char *path)
{
	int from = open(path, O_RDONLY | O_CLOEXEC),
	    to = memfd_create("emfatier-rdmacm", MFD_CLOEXEC);
	struct stat st = { 0 };
	char name[64];
	void *dl = NULL;
	off_t at = 0;

	snprintf(name, sizeof(name), "/proc/thread-self/fd/%d", to);
	if (from >= 0 && to >= 0 && !fstat(from, &st))
		while (at < st.st_size && sendfile(to, from, &at, (size_t)(st.st_size - at)) > 0)
			;
	if (st.st_size && at == st.st_size)
		dl = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	return dl;
}

struct function {
	const char *name;
	void **to;
};

static bool find(void *dl, const struct function *f, size_t n)
{
	for (size_t i = 0; dl && i < n; i++) {
		*f[i].to = dlsym(dl, f[i].name);
		if (!*f[i].to)
			return false;
	}
	return dl;
}

static const struct function manager[] = {
	{ "rdma_create_event_channel", (void **)&cm.create_event_channel },
	{ "rdma_destroy_event_channel", (void **)&cm.destroy_event_channel },
	{ "rdma_create_id", (void **)&cm.create_id },
	{ "rdma_destroy_id", (void **)&cm.destroy_id },
	{ "rdma_resolve_addr", (void **)&cm.resolve_addr },
	{ "rdma_resolve_route", (void **)&cm.resolve_route },
	{ "rdma_create_qp", (void **)&cm.create_qp },
	{ "rdma_destroy_qp", (void **)&cm.destroy_qp },
	{ "rdma_connect", (void **)&cm.connect },
	{ "rdma_disconnect", (void **)&cm.disconnect },
	{ "rdma_get_cm_event", (void **)&cm.get_cm_event },
	{ "rdma_ack_cm_event", (void **)&cm.ack_cm_event },
	{ "rdma_set_option", (void **)&cm.set_option },
};

static const struct function verbs[] = {
	{ "ibv_reg_mr", (void **)&cm.reg_mr },
	{ "ibv_dereg_mr", (void **)&cm.dereg_mr },
};

int cm_load(char *err, size_t errlen)
{
	Dl_info where;
	void *dl;

	if (loaded_by == getpid())
		return 0;
	if (loaded_by && dladdr((void *)cm.create_id, &where) && where.dli_fname)
		dl = load_copy(where.dli_fname);
	else
		dl = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!find(dl, manager, sizeof(manager) / sizeof(manager[0])) ||
	    !find(dlopen(VERBS, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE), verbs,
		  sizeof(verbs) / sizeof(verbs[0]))) {
		snprintf(err, errlen, "cannot load %s, %s (Debian: librdmacm1)", LIBRARY, VERBS);
		return -ELIBACC;
	}
	/* Before Linux 5.12 a fork takes the pages that a card writes to from who it writes for. */
	if (ibv_is_fork_initialized() == IBV_FORK_DISABLED)
		(void)ibv_fork_init();
	loaded_by = getpid();
	return 0;
}
