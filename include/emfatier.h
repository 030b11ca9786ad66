/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hints for emfatier, for programs that can be changed. Nothing is linked: where
 * libemfatier.so is not preloaded every call does nothing and returns 0. (In an executable that
 * is not position independent link with -Wl,-z,dynamic-undefined-weak.)
 *
 * Hints are about memory that emfatier manages, in units of 2 MiB; what a range has of other
 * memory is left alone. They change when memory moves, never what it holds. Any thread, not
 * a signal handler. Each returns 0, or -errno: -EINVAL for a range that wraps around.
 */
#ifndef EMFATIER_H
#define EMFATIER_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum emf_hint {
	EMF_HINT_NAME,
	EMF_HINT_PIN,
	EMF_HINT_UNPIN,
	EMF_HINT_WILL_NEED,
	EMF_HINT_WONT_NEED,
	EMF_HINT_TOKEN_BEGIN,
	EMF_HINT_TOKEN_END,
};

/* What the library exports; the calls below are the ones to use. -ENOSYS: it is older than this. */
extern long emfatier_hint(int what, const void *addr, size_t len, const char *name)
    __attribute__((weak));

static inline long emf_hint_(int what, const void *addr, size_t len, const char *name)
{
	return emfatier_hint ? emfatier_hint(what, addr, len, name) : 0;
}

/*
 * The whole 2 MiB units of the range get a name, for `match=name=GLOB` of a class: "weights",
 * "kv" and so on, at most 31 characters. Once for each area, not for each tensor: areas
 * with different names are different regions from then on.
 */
static inline long emf_name(const void *addr, size_t len, const char *name)
{
	return emf_hint_(EMF_HINT_NAME, addr, len, name);
}

/* Stays local as long as anything else can go instead; what is far comes as soon as it can. */
static inline long emf_pin(const void *addr, size_t len)
{
	return emf_hint_(EMF_HINT_PIN, addr, len, 0);
}

static inline long emf_unpin(const void *addr, size_t len)
{
	return emf_hint_(EMF_HINT_UNPIN, addr, len, 0);
}

/* Is fetched ahead, in this order, as far as there is room; the last 16 such ranges count. */
static inline long emf_will_need(const void *addr, size_t len)
{
	return emf_hint_(EMF_HINT_WILL_NEED, addr, len, 0);
}

/* Leaves first when room is needed. What it holds stays as it is. */
static inline long emf_wont_need(const void *addr, size_t len)
{
	return emf_hint_(EMF_HINT_WONT_NEED, addr, len, 0);
}

/* Around the work for one token (step, request): marks in a trace (engine.trace). */
static inline long emf_token_begin(void)
{
	return emf_hint_(EMF_HINT_TOKEN_BEGIN, 0, 0, 0);
}

static inline long emf_token_end(void)
{
	return emf_hint_(EMF_HINT_TOKEN_END, 0, 0, 0);
}

#ifdef __cplusplus
}
#endif
#endif
