/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The provider ABI: how the runtime talks to a far store.
 *
 * A *backend* is a flat, byte-addressed space with asynchronous reads, writes
 * and trims. Leaf backends (providers: mem, file, nbd, ...) are shared objects
 * that export one symbol, `emf_provider`; links of the store chain (checksum,
 * stripe, ...) have the same shape and sit on other backends, as nbdkit's
 * filters do on its plugins.
 *
 * Threads: open and close are called by one thread while no queue exists. A
 * *queue* belongs to the one thread that uses it after queue_open; several
 * queues of one backend are used by several threads at once. Nothing here may
 * touch memory that emfatier manages, and after open nothing may take a lock of
 * the dynamic linker, of stdio or of the resolver: the calling thread may be
 * the one that resolves page faults. So malloc and free are allowed only with
 * EMF_CAP_MALLOC: inside the runtime's threads they are served from memory that is
 * never managed, but not where the program brings an allocator of its own.
 *
 * Offsets and lengths are multiples of 4096, buffers are 4096-byte aligned.
 * Errors are negative errno values.
 */
#ifndef EMFATIER_PROVIDER_H
#define EMFATIER_PROVIDER_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>

#define EMF_PROVIDER_ABI 4u

enum emf_op {
	EMF_READ,
	EMF_WRITE,
	EMF_TRIM, /* the range's content is no longer needed; buf is unused */
};

/*
 * One transfer. The submitter owns the memory and must keep it and the buffer
 * until `done` was called. `done` runs inside the poll (never inside the submit)
 * of the queue that it was submitted to, exactly once, with `status` set to 0 or
 * -errno; it may submit further transfers to the same queue. A short transfer
 * does not exist: all or an error.
 */
struct emf_io {
	enum emf_op op;
	int status;
	uint64_t offset;
	size_t length;
	void *buf;
	void (*done)(struct emf_io *io);
	void *user; /* the submitter's */
	struct emf_io
	    *next; /* for lists of whoever holds the io: the backend between submit and done */
	uint64_t scratch[2]; /* the backend's, between submit and done */
};

enum emf_queue_kind {
	EMF_QUEUE_DEMAND, /* few transfers, each of which a program thread waits for */
	EMF_QUEUE_BULK,	  /* prefetch and write-out */
};

enum {
	EMF_CAP_SYNC =
	    1u << 0, /* transfers are done by the CPU inside submit/poll; nothing to wait for */
	EMF_CAP_TRIM = 1u << 1, /* trim gives space back */
	EMF_CAP_OUTLIVES =
	    1u << 2, /* written space outlives the process: somebody must trim it after a crash */
	EMF_CAP_MALLOC = 1u << 3, /* uses malloc after open, or what open got from it */
	EMF_CAP_CUTS = 1u << 4,	  /* closing a queue never waits for what is in flight */
	EMF_CAP_CONNECTS =
	    1u << 5,		 /* a queue can break for reasons of its own, and be opened anew */
	EMF_CAP_BYTES = 1u << 6, /* byte-addressable: a small read costs nothing but its copy */
};

struct emf_backend;
struct emf_queue;

struct emf_queue_ops {
	/*
	 * Hands over one transfer. 0: taken, `done` will follow. -EAGAIN: the
	 * queue is full, poll first; the io was not taken. Never blocks for
	 * the transfer; no other error: a broken queue takes the io and fails
	 * it through `done`.
	 */
	int (*submit)(struct emf_queue *q, struct emf_io *io);
	/*
	 * Moves things on and calls `done` of all that have ended, without
	 * blocking. Returns how many `done` were called (0 is fine). A broken
	 * connection ends all its transfers with an error (-EIO, -ENOTCONN, ...).
	 */
	int (*poll)(struct emf_queue *q);
	/*
	 * Fills at most `max` entries with what to poll(2) for before `poll`
	 * has something to do; returns the number of entries; 0 when
	 * everything ends without waiting (EMF_CAP_SYNC). When nothing is in
	 * flight: what tells at once that the connection is broken, or 0.
	 */
	int (*pollfds)(struct emf_queue *q, struct pollfd *fds, int max);
	/* Ends the queue. What is in flight is ended (-ECANCELED) first. */
	void (*close)(struct emf_queue *q);
};

struct emf_queue {
	const struct emf_queue_ops *ops;
	unsigned inflight; /* transfers taken and not yet done; kept by the backend */
};

struct emf_backend_ops {
	/* depth: how many transfers the submitter wants in flight at once. */
	int (*queue_open)(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			  struct emf_queue **out);
	/* All queues are closed by now. */
	void (*close)(struct emf_backend *be);
	/*
	 * Before the first queue is opened: where the buffers of most transfers will be, for as
	 * long as the space is open. It may be registered with a device, but nothing of it may be
	 * pinned: pages are moved away from there, and others put, while no transfer has them.
	 * NULL: it makes no difference (links, too).
	 */
	void (*memory)(struct emf_backend *be, const void *base, size_t length);
	/*
	 * fork: which descriptors a child needs to use the same space beside the
	 * parent. At most max; their count, or -ENOTSUP: it can't. Chain links have
	 * none: NULL.
	 */
	int (*descriptors)(const struct emf_backend *be, int *fds, int max);
	/*
	 * In the child, whose memory is a copy of the parent's, but not its descriptors:
	 * goes on with those of `fds`, as many as `descriptors` gave in its order, and
	 * opens anew what else it needs. The parent's queues are garbage and must not be
	 * touched. Returns how many it took, or -errno. NULL: nothing to do (links).
	 */
	int (*forked)(struct emf_backend *be, const int *fds);
	/*
	 * In a child that does not go on with it: unmaps what came with the fork. Descriptors
	 * and queues are the parent's. NULL: nothing to do.
	 */
	void (*forget)(struct emf_backend *be);
};

struct emf_backend {
	const struct emf_backend_ops *ops;
	uint64_t size;	     /* bytes */
	uint32_t caps;	     /* EMF_CAP_* */
	uint32_t max_length; /* of one transfer, bytes */
};

/* What a provider exports as `const struct emf_provider emf_provider`. */
struct emf_provider {
	uint32_t abi; /* EMF_PROVIDER_ABI */
	const char *name;
	/*
	 * Opens the space that `uri` names. May block and may resolve names;
	 * `timeout_ms` bounds the whole. On error returns -errno and writes one line
	 * for a person to err (what was wrong; the URI itself is added by the
	 * caller, which also strips secrets).
	 * -EINVAL: the URI is malformed.
	 */
	int (*open)(const char *uri, unsigned timeout_ms, struct emf_backend **out, char *err,
		    size_t errlen);
};

#endif
