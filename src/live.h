/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings that can be changed while the process runs, and what a change takes.
 */
#ifndef EMF_LIVE_H
#define EMF_LIVE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Is "section.key=value" a setting, and one that can be changed? False: why tells, in one line.
 * For the tool, which knows the classes of no process, and for the process. No locks.
 */
bool live_check(const char *text, char *why, size_t len);

/*
 * Looks whether anybody asks for a change, of settings or stores, and makes it. By the watch
 * thread, or a program thread while the engine is IDLE; engine.ops is held.
 */
void live_serve(void);

#endif
