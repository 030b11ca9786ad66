/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libc makes all threads change identity together (setuid and the like) and aborts where they fare
 * differently. Capabilities and the like a program changes in the calling thread alone: where that
 * is its main thread, and the only one but ours, ours fare as it does when they did the same
 * before.
 *
 * identity_capset, identity_prctl: the main thread did so. Any other thread's are not noted.
 * identity_begin: the calling thread is ours.
 * identity_follow: all of that, by a thread of ours; async-signal-safe, and errno is left alone.
 */
#ifndef EMF_IDENTITY_H
#define EMF_IDENTITY_H

void identity_prctl(int what, long a, long b, long c, long d);
void identity_capset(const void *head, const void *data);
void identity_begin(void);
void identity_follow(void);
void identity_after_fork(void);

#endif
