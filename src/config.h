/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings: one table of keys (name, type, range, default, help) from which the
 * parser, `emfatier check`, --help and the man page come.
 *
 * Order: built-in < policy file < EMFATIER_CONF (inline, `;` between settings;
 * `emfatier run` puts its command line there). Parsing happens once, before the
 * runtime starts, in one thread; afterwards the struct is read only.
 * Errors: one line "SOURCE:LINE: section.key: what is wrong; what to do" in err,
 * return -EINVAL (or -errno of the file). LINE of inline text is the setting's
 * ordinal. After an error cfg holds what was read before it.
 */
#ifndef EMF_CONFIG_H
#define EMF_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parse.h"
#include "store/tier.h"

#define EMF_MAX_STORES 16
#define EMF_MAX_CLASSES 32
#define EMF_URI_MAX 232

enum emf_heap { EMF_HEAP_LARGE, EMF_HEAP_ALL, EMF_HEAP_OFF };
enum emf_files { EMF_FILES_WEIGHTS, EMF_FILES_MATCH, EMF_FILES_OFF };
enum emf_prefetch {
	EMF_PREFETCH_AUTO,
	EMF_PREFETCH_SEQUENTIAL,
	EMF_PREFETCH_TREND,
	EMF_PREFETCH_LEARNED,
	EMF_PREFETCH_OFF
};
/* What is fetched when a far block is touched; auto: as it is seen (sparse.h). */
enum emf_granule { EMF_GRANULE_AUTO, EMF_GRANULE_PAGE, EMF_GRANULE_CLUSTER, EMF_GRANULE_BLOCK };
#define EMF_PLACE_WEIGHTED 101u /* what is swept, by the bandwidths: interleave.h */
enum emf_evict { EMF_EVICT_AUTO, EMF_EVICT_LOOP, EMF_EVICT_LRU, EMF_EVICT_LFU };
enum emf_redundancy { EMF_REDUNDANCY_NONE, EMF_REDUNDANCY_MIRROR, EMF_REDUNDANCY_PARITY };

/* SIZE (bytes) or PERCENT of the memory that this process may use. */
struct emf_amount {
	uint64_t bytes;	  /* when percent is 0 */
	unsigned percent; /* 1..100 */
	bool automatic;	  /* auto: percent is where it starts; then as memory gets short and free */
};

struct emf_class {
	char name[32];
	unsigned line; /* where the section starts, for messages; 0: inline */
	/* match= : all that are given must hold; the first class that matches is taken */
	uint64_t match_min, match_max; /* bytes of the region, inclusive: size>=X, size<=X */
	char match_command[64];	       /* command=GLOB on the process name; empty: any */
	char match_thread[64];	       /* thread=GLOB on the name of the thread that made it */
	char match_library[64];	       /* library=GLOB on the object that asked for it */
	char match_name[64];	       /* name=GLOB on what emf_name calls it */
	char match_file[64]; /* file:GLOB on the file that is mapped; empty: any, or none */
	uint64_t order_min, order_max; /* order=N, order>=N, order<=N: the how manieth it is */
	unsigned match_does;	       /* does=WORD,...: EMF_DOES_*, all of them */
	enum emf_evict evict;
	enum emf_prefetch prefetch;
	unsigned window;   /* blocks that prefetch runs ahead; 0: by the engine */
	unsigned resident; /* percent of the region's blocks, spread evenly, that stay local; 0: by
			      the engine */
	enum emf_granule granule;
	unsigned place; /* percent of its blocks that belong on the slow node; 0: what does not
			   fit; EMF_PLACE_WEIGHTED */
};

/* What a region was seen to do (policy.h: does). */
enum {
	EMF_DOES_SWEPT = 1 << 0,    /* read from one end to the other */
	EMF_DOES_RANDOM = 1 << 1,   /* here and there */
	EMF_DOES_APPENDED = 1 << 2, /* grows, block by block */
	EMF_DOES_SCRATCH = 1 << 3,  /* written to each time */
	EMF_DOES_CONSTANT = 1 << 4, /* written once, then read */
};

/* What is known of a region when its class is looked for. */
struct emf_traits {
	uint64_t bytes;
	const char *command, *name;
	const char *file; /* that is mapped there, NULL: none */
	uint32_t who;	  /* config_who */
	uint32_t order;	  /* 1: the first that was made */
	unsigned does;	  /* EMF_DOES_* */
};

/* What classes ask for that costs something to find out. */
enum { EMF_ASKS_THREAD = 1 << 0, EMF_ASKS_LIBRARY = 1 << 1 };

struct emf_config {
	char command[64];	 /* of this process, for [process GLOB]; empty: none applies */
	struct emf_amount limit; /* local.limit */
	unsigned high, low; /* percent of the limit: eviction starts above high, stops at low */
	unsigned nstores;
	char store_uri[EMF_MAX_STORES][EMF_URI_MAX]; /* nstores 0: the default file store */
	uint8_t store_tier[EMF_MAX_STORES];	     /* of each store, from 0 */
	struct store_tier tiers[EMF_MAX_STORES];
	uint64_t stripe;     /* bytes: the unit of the stripe set */
	unsigned timeout_ms; /* store.timeout */
	bool encrypt;	     /* store.encrypt */
	enum emf_redundancy redundancy;
	unsigned data, more; /* parity: columns; mirror: 1 and copies more; data 0: by nstores */
	uint64_t in_place;   /* store.in_place: bytes; 0: none */
	uint64_t rebuild;    /* store.rebuild: bytes a second */
	char inject[256];    /* store.inject, see store/inject.h */
	uint64_t min_region; /* engine.min_region */
	enum emf_heap heap;
	enum emf_files files;
	bool signal;	 /* engine.fault: signal (true) or thread */
	bool move;	 /* engine.move: auto (true) or off */
	unsigned chaos;	 /* evictions a second, 0: off */
	char trace[256]; /* engine.trace: the file, or empty */
	unsigned asks;	 /* EMF_ASKS_* of all classes */
	unsigned nclasses;
	struct emf_class classes[EMF_MAX_CLASSES];
};

/* Built-in settings. Cannot fail. */
void config_defaults(struct emf_config *cfg);

/*
 * Reads an INI policy file (NAME without a slash and without .conf: NAME.conf in
 * one of the policy directories: $EMFATIER_POLICY_DIR, beside the library or
 * tool (../policies of it), PREFIX/share/emfatier/policies).
 */
int config_read_policy(struct emf_config *cfg, const char *name, char *err, size_t errlen);

/* The file that config_read_policy would read: out holds PATH_MAX. -ENOENT: err tells. */
int config_find_policy(const char *name, char *out, char *err, size_t errlen);

/* Reads exactly this INI file. A regular one: nothing that could make us wait. */
int config_read_file(struct emf_config *cfg, const char *path, char *err, size_t errlen);

/* Reads inline settings: "section.key=value;section.key=value". source: for messages. */
int config_read_inline(struct emf_config *cfg, const char *text, const char *source, char *err,
		       size_t errlen);

/* What holds between keys (low <= high ...). */
int config_validate(const struct emf_config *cfg, char *err, size_t errlen);

/* What holds when all sources were read: are there stores enough for the redundancy? */
int config_validate_stores(const struct emf_config *cfg, char *err, size_t errlen);
/* The columns of the redundancy: data and beyond that; 1 and 0 for none. */
void config_columns(const struct emf_config *cfg, unsigned *data, unsigned *more);

/*
 * One setting, "section.key=value" or "class.NAME.key=value", as inline text holds
 * it between the `;`. False: why tells "section.key: what is wrong; what to do".
 */
bool config_set_text(struct emf_config *cfg, const char *text, char *why, size_t len);

/*
 * The environment as the contract says: EMFATIER_POLICY, then EMFATIER_CONF, each
 * over what cfg holds.
 */
int config_read_env(struct emf_config *cfg, char *err, size_t errlen);

/* The limit in bytes: a percentage is of the cgroup's limit (v1 or v2) or the host's memory. */
uint64_t config_limit_bytes(const struct emf_config *cfg);

/* A bit for each class whose thread= and library= hold; they are known only when it is made. */
uint32_t config_who(const struct emf_config *cfg, const char *thread, const char *library);
/* The first class that matches, or NULL. */
const struct emf_class *config_class(const struct emf_config *cfg, const struct emf_traits *t);
/* Does a class ask for the file, by file:? A glob without a slash is for the last part of its path.
 */
bool config_file_named(const struct emf_config *cfg, const char *path);
/* `*` and `?`. */
bool config_glob(const char *glob, const char *text);

/* Calls fn for every key of the table, for help texts and documentation. */
void config_describe(void (*fn)(const char *section, const char *key, const char *type,
				const char *dflt, const char *help));

#endif
