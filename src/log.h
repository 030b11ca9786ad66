/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one line a message, by write(2), no stdio and no allocation. Any thread,
 * also while a program thread is stopped.
 *
 * It writes to the descriptor that was standard error when the process started,
 * and no longer once the program has put something else there: descriptor 2 may
 * by then be a data file. The runtime's threads have a descriptor table of their
 * own (engine.h), so they borrow the program's descriptor for each line.
 */
#ifndef EMF_LOG_H
#define EMF_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* spec: EMFATIER_LOG, `error|warn|info|debug[:FILE]` or NULL. False: spec is malformed. */
bool log_open(const char *spec);

/* Called once by each thread whose descriptor table is not the program's. */
void log_own_table(void);

void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)

#endif
