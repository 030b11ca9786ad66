/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection to emfatierd: from an address to memory that can be read and written, and the
 * transfers on it.
 *
 *   IDLE -> ADDRESS -> ROUTE -> CONNECT -> HELLO -> PROVE -> LEASE -> MAP -> READY
 *   READY -> RELEASE -> RELEASED
 *   any -> BROKEN: `error` says why; path_start begins anew
 *
 * The first three are the connection manager's, the others wait for an answer of the server.
 * Nothing blocks: path_step moves on what can be moved on.
 *
 * Transfers are pieces of at most path_chunk bytes in a ring of slots, each with registered memory
 * of its own: what is written is copied there when it is pushed, what was read is copied from there
 * when it has ended. Or, where the card takes page faults, it reaches frames themselves (odp.h):
 * these are the transfer's until it has ended, and before it is taken back the queue pair is gone.
 * So a card never reaches memory of anybody else's, whatever becomes of the connection. Pieces are
 * pushed one by one and posted together by path_flush; a completion is asked for for some of them
 * only, and the order of a reliable connection says that those before have ended, too.
 *
 * Belongs to one thread.
 */
#ifndef EMF_RDMA_PATH_H
#define EMF_RDMA_PATH_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "auth.h"
#include "cm.h"
#include "emfatier-provider.h"
#include "odp.h"
#include "wire.h"

enum path_state {
	PATH_IDLE,
	PATH_ADDRESS,
	PATH_ROUTE,
	PATH_CONNECT,
	PATH_HELLO,
	PATH_PROVE,
	PATH_LEASE,
	PATH_MAP,
	PATH_READY,
	PATH_RELEASE,
	PATH_RELEASED,
	PATH_BROKEN,
};

/* Who we are to the server, and what we have there. Constant while there are connections. */
struct path_terms {
	char tenant[WIRE_NAME];
	struct secret secret; /* length 0: none */
	uint8_t key[WIRE_KEY];
	uint64_t bytes; /* 0: whatever it gives */
	/* Where the runtime's frames are, for cards that need not pin what they reach; bytes 0: not
	 * told. */
	const void *frames;
	size_t frames_bytes;
};

struct path_piece {
	struct emf_io *io;
	size_t at; /* in it */
	uint32_t length;
};

#define PATH_STASH 8

struct path {
	const struct path_terms *terms;
	const struct sockaddr_storage *peer;
	bool control; /* for messages only: nothing is mapped; it holds the lease */
	bool direct;  /* transfers may go from and to frames; as path_init left it: none does */
	unsigned slots;
	uint32_t chunk;

	enum path_state state;
	int error;
	enum wire_status refusal; /* if that was why */
	struct rdma_event_channel *events;
	struct rdma_cm_id *id;
	struct ibv_pd *pd;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_mr *mr;
	struct odp odp;
	bool connected, inlined;
	uint8_t nonce[WIRE_NONCE], server_nonce[WIRE_NONCE];
	bool prove;
	struct wire_state server; /* as it was when it let us in */

	/* of the lease */
	uint64_t bytes, slab_bytes;
	bool fresh;
	uint32_t mapped;
	struct wire_slab *slab;

	/* all that the card reaches: messages, then the slots */
	uint8_t *memory;
	struct path_piece *piece;
	struct ibv_send_wr *wr;
	struct ibv_sge *sge;
	uint64_t head, posted, tail; /* of the ring, ever growing */
	uint64_t inflight;	     /* bytes */
	uint64_t progress;	     /* ns: when something last ended, or the first was pushed */
	bool armed;		     /* the channel will tell of the next completion */
	struct ibv_wc stash[PATH_STASH];
	int nstash;
};

/* slots 0: a control connection. 0 or -ENOMEM. Its memory goes with path_free. */
int path_init(struct path *p, const struct path_terms *terms, const struct sockaddr_storage *peer,
	      unsigned slots, uint32_t chunk);
void path_free(struct path *p);

/* Begins to connect; after BROKEN, too. What goes wrong shows as BROKEN. */
void path_start(struct path *p);
/* Ends the connection, if there is one; pieces in the ring stay for path_take_back. IDLE. */
void path_stop(struct path *p);
/* Reads what there is of events and answers. */
void path_step(struct path *p);
/* READY -> RELEASE */
void path_release(struct path *p);
static inline bool path_is_connecting(const struct path *p)
{
	return p->state > PATH_IDLE && p->state < PATH_READY;
}

/* One line for a person about why it is BROKEN. */
void path_why(const struct path *p, char *out, size_t length);

/* In READY: is there a slot left? */
static inline bool path_has_room(const struct path *p)
{
	return p->tail - p->head < p->slots;
}
void path_push(struct path *p, const struct path_piece *piece, uint64_t now);
void path_flush(struct path *p);
/* Calls ended for each piece that has. Returns how many. */
unsigned path_poll(struct path *p, void (*ended)(void *arg, const struct path_piece *piece),
		   void *arg, uint64_t now);
/* The pieces that have not ended, of one that is not connected: false: there are none left. */
bool path_take_back(struct path *p, struct path_piece *out);
/* Before sleeping on the channel. True: don't, there is something to poll for. */
bool path_arm(struct path *p);

#endif
