/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The environment, without getenv: a program may have one of its own (bash does, over its
 * table of variables), which then serves the runtime, too, and touches memory that is managed
 * and, in a forked child that has just begun, not there yet. And the program may
 * change its environment while a thread of the runtime reads it.
 */
#ifndef EMF_ENV_H
#define EMF_ENV_H

/*
 * From the library's constructor: env_get answers from copies in the runtime's own memory from
 * now on. Without it (the tools, tests) it reads what is there at the time.
 */
void env_keep(void);

/* The value, or NULL: not set. Only names of env.c's list are kept. Any thread. */
const char *env_get(const char *name);

#endif
