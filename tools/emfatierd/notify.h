/* SPDX-License-Identifier: Apache-2.0 */
/* What the service manager is told (sd_notify(3)): one datagram to NOTIFY_SOCKET. */
#ifndef EMFATIERD_NOTIFY_H
#define EMFATIERD_NOTIFY_H

/* Connects, while that can be done; without NOTIFY_SOCKET nobody is told anything. */
void notify_open(void);
/* "READY=1", "STATUS=...", lines of them. */
void notify_send(const char *text);

#endif
