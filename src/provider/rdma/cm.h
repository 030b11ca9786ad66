/* SPDX-License-Identifier: Apache-2.0 */
/*
 * librdmacm's functions. It keeps the devices that it has opened in variables of its own, and in a
 * forked child these are of no use, and not to be closed. So a process that has got such variables
 * by a fork uses another copy of the library, with new ones. libibverbs has none of that kind.
 *
 * And two functions of libibverbs: emfatier's library has some of the same name, by which it learns
 * what programs register; what is registered here is no business of its.
 *
 * In open only: takes the dynamic linker's lock. In one thread at a time.
 */
#ifndef EMF_RDMA_CM_H
#define EMF_RDMA_CM_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stddef.h>

#undef ibv_reg_mr /* a macro over the function */

struct cm {
	typeof(rdma_create_event_channel) *create_event_channel;
	typeof(rdma_destroy_event_channel) *destroy_event_channel;
	typeof(rdma_create_id) *create_id;
	typeof(rdma_destroy_id) *destroy_id;
	typeof(rdma_resolve_addr) *resolve_addr;
	typeof(rdma_resolve_route) *resolve_route;
	typeof(rdma_create_qp) *create_qp;
	typeof(rdma_destroy_qp) *destroy_qp;
	typeof(rdma_connect) *connect;
	typeof(rdma_disconnect) *disconnect;
	typeof(rdma_get_cm_event) *get_cm_event;
	typeof(rdma_ack_cm_event) *ack_cm_event;
	typeof(rdma_set_option) *set_option;
	typeof(ibv_reg_mr) *reg_mr;
	typeof(ibv_dereg_mr) *dereg_mr;
};

extern struct cm cm;

/* 0, or -errno and err: one line. */
int cm_load(char *err, size_t errlen);

#endif
