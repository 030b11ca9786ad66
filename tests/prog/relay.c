/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay LISTEN TARGET MODE: passes on what comes to the Unix socket LISTEN to the Unix
 * socket TARGET, and back, as the file MODE says, which is read again all the time:
 *
 *   pass        as it is (also where there is no such file)
 *   delay MS    each piece that much later
 *   corrupt     a wrong byte in every fourth piece, either way, headers included
 *   partition   nothing passes, nor is a connection taken, and nobody is told
 *
 * It is the bad link of the fault tests.
 */
#include "prog.h"

#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define CONNECTIONS 64
#define ROOM (256u << 10)
#define TICK_MS 10

enum mode { PASS, DELAY, CORRUPT, PARTITION };
static enum mode mode;
static unsigned delay_ms;
static uint32_t random_state;

/* What is on its way from one socket to the other. */
struct way {
	char *buf;
	size_t at, end;
	double not_before; /* s */
};

static struct connection {
	int fd[2];	   /* -1: free */
	struct way way[2]; /* from fd[i] to fd[1 - i] */
} connections[CONNECTIONS];

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint32_t any(uint32_t below)
{
	random_state = random_state * 1664525u + 1013904223u;
	return (uint32_t)(((uint64_t)random_state * below) >> 32);
}

static void read_mode(const char *path)
{
	char text[64] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		ssize_t n = read(fd, text, sizeof(text) - 1);

		text[n > 0 ? n : 0] = '\0';
		close(fd);
	}
	delay_ms = 0;
	mode = !strncmp(text, "corrupt", 7)		? CORRUPT
	       : !strncmp(text, "partition", 9)		? PARTITION
	       : sscanf(text, "delay %u", &delay_ms) == 1 ? DELAY
							: PASS;
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(a.sun_path))
		die("relay: the path is too long: %s", path);
	strcpy(a.sun_path, path);
	return a;
}

static void accept_one(int listener, const char *target)
{
	struct sockaddr_un a = address(target);
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), other;
	struct connection *c = connections;

	if (fd < 0)
		return;
	other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	while (c < connections + CONNECTIONS && c->fd[0] >= 0)
		c++;
	if (c == connections + CONNECTIONS || other < 0 ||
	    connect(other, (struct sockaddr *)&a, sizeof(a))) {
		close(fd);
		close(other);
		return;
	}
	fcntl(other, F_SETFL, O_NONBLOCK);
	c->fd[0] = fd;
	c->fd[1] = other;
	for (int i = 0; i < 2; i++) {
		char *buf = c->way[i].buf ? c->way[i].buf : malloc(ROOM);

		if (!buf)
			die("relay: out of memory");
		c->way[i] = (struct way){ .buf = buf };
	}
}

/* False: the connection has ended. */
static bool take(struct connection *c, int i)
{
	struct way *w = &c->way[i];
	ssize_t n = read(c->fd[i], w->buf, ROOM);

	if (n < 0 && errno == EAGAIN)
		return true;
	if (n <= 0)
		return false;
	w->at = 0;
	w->end = (size_t)n;
	w->not_before = mode == DELAY ? now() + delay_ms / 1e3 : 0;
	if (mode == CORRUPT && !any(4))
		w->buf[any((uint32_t)n)] ^= (char)(1u << any(8));
	return true;
}

static bool give(struct connection *c, int i)
{
	struct way *w = &c->way[i];
	ssize_t n = send(c->fd[1 - i], w->buf + w->at, w->end - w->at, MSG_NOSIGNAL);

	if (n < 0)
		return errno == EAGAIN;
	w->at += (size_t)n;
	return true;
}

static void end(struct connection *c)
{
	close(c->fd[0]);
	close(c->fd[1]);
	c->fd[0] = c->fd[1] = -1;
}

/* What the connection waits for, in fds; nothing while it is to stand still. */
static void wants(const struct connection *c, struct pollfd fds[2], double at)
{
	for (int i = 0; i < 2; i++)
		fds[i] = (struct pollfd){ .fd = mode == PARTITION ? -1 : c->fd[i] };
	for (int i = 0; i < 2 && c->fd[0] >= 0; i++) {
		const struct way *w = &c->way[i];

		if (w->at == w->end)
			fds[i].events |= POLLIN;
		else if (at >= w->not_before)
			fds[1 - i].events |= POLLOUT;
	}
	/* An end is seen when there is nothing left to pass on before it. */
	for (int i = 0; i < 2; i++)
		if (!fds[i].events)
			fds[i].fd = -1;
}

static void serve(struct connection *c, const struct pollfd fds[2])
{
	for (int i = 0; i < 2; i++) {
		struct way *w = &c->way[i];
		bool goes_on = true;

		if (w->at == w->end && fds[i].fd >= 0 && fds[i].revents)
			goes_on = take(c, i);
		else if (w->at < w->end && fds[1 - i].fd >= 0 && fds[1 - i].revents & (POLLOUT | POLLERR | POLLHUP))
			goes_on = now() < w->not_before || give(c, i);
		if (!goes_on) {
			end(c);
			return;
		}
	}
}

int main(int argc, char **argv)
{
	static struct pollfd fds[1 + 2 * CONNECTIONS];
	int listener;

	if (argc != 4)
		die("usage: relay LISTEN TARGET MODE");
	struct sockaddr_un a = address(argv[1]);
	listener = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	(void)SYS(bind(listener, (struct sockaddr *)&a, sizeof(a)));
	(void)SYS(listen(listener, CONNECTIONS));
	random_state = (uint32_t)getpid();
	for (int i = 0; i < CONNECTIONS; i++)
		connections[i].fd[0] = connections[i].fd[1] = -1;
	for (;;) {
		read_mode(argv[3]);
		fds[0] = (struct pollfd){ .fd = mode == PARTITION ? -1 : listener, .events = POLLIN };
		for (int i = 0; i < CONNECTIONS; i++)
			wants(&connections[i], &fds[1 + 2 * i], now());
		poll(fds, 1 + 2 * CONNECTIONS, TICK_MS);
		if (fds[0].revents)
			accept_one(listener, argv[2]);
		for (int i = 0; i < CONNECTIONS; i++)
			if (connections[i].fd[0] >= 0 && fds[1 + 2 * i].fd + fds[2 + 2 * i].fd > -2)
				serve(&connections[i], &fds[1 + 2 * i]);
	}
}
