/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client and emfatierd say to each other before, and beside, one-sided transfers: messages
 * of WIRE_BYTES each, little-endian, sent and received on the connection that the transfers use.
 *
 *   client                            server
 *   HELLO   nonce                ->
 *                                <-   CHALLENGE nonce, must the client prove itself?
 *   PROVE   tenant, MAC          ->
 *                                <-   WELCOME status, MAC, state of the server
 *   LEASE   key, bytes, hold?    ->                                   once a connection
 *                                <-   LEASED status, bytes, those of a slab, fresh?, how long
 *   MAP     first slab           ->                                   as often as needed
 *                                <-   MAPPED status, up to WIRE_SLABS addresses with remote keys
 *   ASK                          ->                                   at any time
 *                                <-   STATE status, state of the server
 *   RELEASE                      ->
 *                                <-   RELEASED status: all connections of the lease end
 *
 * Each MAC is over both nonces and the tenant (auth.h). A lease is named by a key that the client
 * makes up: who comes with a known one shares that lease, which is how more queues, other paths,
 * and connections that are made anew find the same memory; a lease that is not known (any more) is
 * made afresh, and LEASED says so. The connection that holds a lease is the one that is only made
 * anew to give it back: when the client ends it, or dies, the lease ends.
 *
 * Pure functions. Decoding takes nothing on trust: what is not exactly a message that could have
 * been encoded here is -EPROTO, and *out is not touched.
 */
#ifndef EMF_RDMA_WIRE_H
#define EMF_RDMA_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_VERSION 1u
#define WIRE_BYTES 256u
#define WIRE_NONCE 32u
#define WIRE_MAC 32u
#define WIRE_KEY 16u
#define WIRE_NAME 32u	     /* with its NUL, and NULs behind it */
#define WIRE_SLABS 12u	     /* in one MAPPED */
#define WIRE_MAX_SLABS 4096u /* of a lease */
#define WIRE_MIN_SLAB (2ull << 20)
#define WIRE_MAX_SLAB (1ull << 40)
#define WIRE_PORT 10810

enum wire_type {
	WIRE_HELLO = 1,
	WIRE_CHALLENGE,
	WIRE_PROVE,
	WIRE_WELCOME,
	WIRE_LEASE,
	WIRE_LEASED,
	WIRE_MAP,
	WIRE_MAPPED,
	WIRE_ASK,
	WIRE_STATE,
	WIRE_RELEASE,
	WIRE_RELEASED,
	WIRE_TYPES,
};

/* In answers: what came of it. */
enum wire_status {
	WIRE_OK,
	WIRE_DENIED,   /* the tenant is not known, or the MAC is wrong: not told which */
	WIRE_QUOTA,    /* more than the tenant has left */
	WIRE_FULL,     /* more than the server has left, or too many clients or leases */
	WIRE_DRAINING, /* the server is about to end */
	WIRE_WRONG,    /* not now, or not with these values */
	WIRE_STATUSES,
};

/* How the server is: its health is that it answers, and is not draining. */
struct wire_state {
	bool draining;
	uint32_t clients, leases;
	uint32_t load;		  /* leased, in thousandths of all */
	uint64_t size, available; /* bytes: of all; that this tenant could lease now */
};

struct wire_slab {
	uint64_t address;
	uint32_t rkey;
};

struct wire_message {
	enum wire_type type;
	enum wire_status status; /* of answers but CHALLENGE */
	union {
		struct {
			uint8_t nonce[WIRE_NONCE];
			bool prove; /* of CHALLENGE */
		} hello;	    /* HELLO, CHALLENGE */
		struct {
			char tenant[WIRE_NAME]; /* of PROVE */
			uint8_t mac[WIRE_MAC];
			struct wire_state state; /* of WELCOME */
		} proof;			 /* PROVE, WELCOME */
		struct {
			uint8_t key[WIRE_KEY]; /* of LEASE */
			bool hold;
			uint64_t bytes;	     /* of LEASE: 0: what the server thinks fit */
			uint64_t slab_bytes; /* of LEASED from here: a power of two */
			bool fresh;
			uint32_t lasts_ms; /* after the last connection is lost */
		} lease;		   /* LEASE, LEASED */
		struct {
			uint32_t first, count;
			struct wire_slab slab[WIRE_SLABS];
		} map;			 /* MAP: first; MAPPED */
		struct wire_state state; /* STATE */
	};
};

/* Fills all of `out`. The message must be one that decodes. */
void wire_encode(const struct wire_message *m, uint8_t out[WIRE_BYTES]);
int wire_decode(const void *data, size_t length, struct wire_message *out);

/* For people: "denied". */
const char *wire_status_text(enum wire_status status);

/* Is it one that tenants may have: 1 to WIRE_NAME - 1 of A-Z a-z 0-9 . _ - ? */
bool wire_is_name(const char *name);

#endif
