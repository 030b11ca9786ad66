/* SPDX-License-Identifier: Apache-2.0 */
/* Policy files: where they are, and reading one by libinih. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config_keys.h"
#include "env.h"
#include "store/where.h"

#define WHY_MAX 512
#define LINE_SIZE (CONFIG_VALUE_MAX + 128) /* of a policy file, for libinih */
#define SECTION_MAX 49			   /* libinih cuts longer section names without a word */

/* A file that is being parsed: the stream behind libinih's reader and handler. */
struct source {
	struct emf_config *cfg;
	int fd;
	size_t pos, filled; /* of buf */
	unsigned line, section_line;
	unsigned bad_line; /* where what holds between keys was broken; 0: it holds */
	bool failed;
	int status; /* when failed: -errno */
	char why[WHY_MAX];
	char buf[4096];
};

static void source_fail(struct source *src, int status, const char *why)
{
	src->failed = true;
	src->status = status;
	if (why)
		snprintf(src->why, sizeof(src->why), "%s", why);
}

/* The next byte, or -1 at the end and on an error. */
static int source_byte(struct source *src)
{
	if (src->pos == src->filled) {
		ssize_t n;

		do
			n = read(src->fd, src->buf, sizeof(src->buf));
		while (n < 0 && errno == EINTR);
		if (n < 0)
			source_fail(src, -errno, strerror(errno));
		if (n <= 0)
			return -1;
		src->pos = 0;
		src->filled = (size_t)n;
	}
	return (unsigned char)src->buf[src->pos++];
}

/* Refuses a section that does not exist even when no key follows it. */
static void source_section(struct source *src, const char *line)
{
	char name[SECTION_MAX + 1], *cls;
	size_t n = strcspn(line, "]");

	src->section_line = src->line;
	if (!line[n])
		return; /* libinih finds that */
	if (n > SECTION_MAX) {
		source_fail(src, -EINVAL, "the section's name is too long");
		return;
	}
	memcpy(name, line, n);
	name[n] = '\0';
	if (!config_section(name, &cls, src->why, sizeof(src->why)))
		source_fail(src, -EINVAL, NULL);
}

/*
 * libinih's reader, as fgets: one line. ini_parse_stream with a reader of our own
 * rather than ini_parse_string, because the handler gets no line numbers. It also
 * drops the blanks in front (an indented key must not continue the line above it)
 * and refuses what libinih would cut or stop at in silence.
 */
static char *source_line(char *line, int size, void *stream)
{
	struct source *src = stream;
	int length = 0, c = -1;

	if (src->failed)
		return NULL;
	src->line++;
	while ((c = source_byte(src)) >= 0 && c != '\n') {
		if (!c) {
			source_fail(src, -EINVAL, "holds a zero byte; a policy is a text file");
			return NULL;
		}
		if (!length && (c == ' ' || c == '\t'))
			continue;
		if (length == size - 1) {
			source_fail(src, -EINVAL, "the line is too long");
			return NULL;
		}
		line[length++] = (char)c;
	}
	line[length] = '\0';
	if (src->failed || (c < 0 && !length))
		return NULL;
	if (src->line == 1 && !strncmp(line, "\xef\xbb\xbf", 3))
		memmove(line, line + 3, (size_t)length - 2);
	if (line[0] == '[')
		source_section(src, line + 1);
	return src->failed ? NULL : line;
}

/* In [process GLOB]: "section.key = value", checked in any case. */
static bool process_key(struct source *src, const char *glob, const char *key, const char *value)
{
	char text[CONFIG_VALUE_MAX + 256];
	struct emf_config other;
	struct emf_config *cfg = src->cfg;

	if (!cfg->command[0] || !config_glob(glob, cfg->command)) {
		other = *cfg;
		cfg = &other;
	}
	snprintf(text, sizeof(text), "%s=%s", key, value);
	return config_set_text(cfg, text, src->why, sizeof(src->why));
}

/* libinih's handler: 0 is an error. */
static int source_key(void *user, const char *section, const char *key, const char *value)
{
	struct source *src = user;
	char name[SECTION_MAX + 2], *cls;

	if (src->failed)
		return 0;
	snprintf(name, sizeof(name), "%s", section);
	if (!name[0]) {
		source_fail(src, -EINVAL, "a key before any section; write [local] above it");
		return 0;
	}
	if (!config_section(name, &cls, src->why, sizeof(src->why))) {
		source_fail(src, -EINVAL, NULL);
		return 0;
	}
	if (!strcmp(name, CONFIG_PROCESS)) {
		if (!process_key(src, cls, key, value))
			source_fail(src, -EINVAL, NULL);
		return !src->failed;
	}
	if (!config_set(src->cfg, name, cls, key, value, src->section_line, src->why,
			sizeof(src->why))) {
		source_fail(src, -EINVAL, NULL);
		return 0;
	}
	/* judged at the end only: the next line may repair what this one broke */
	if (!config_validate(src->cfg, NULL, 0))
		src->bad_line = 0;
	else if (!src->bad_line)
		src->bad_line = src->line;
	return 1;
}

static int source_parse(struct source *src)
{
	/* a run-time variable of libinih, which the program may use as well */
	int line_max = ini_max_line;
	int wrong;

	ini_max_line = LINE_SIZE;
	wrong = ini_parse_stream(source_line, src, source_key, src);
	ini_max_line = line_max;

	if (wrong > 0 && (!src->failed || (unsigned)wrong < src->line)) {
		src->line = (unsigned)wrong;
		source_fail(src, -EINVAL, "neither [section] nor key = value");
	} else if (wrong < 0 && !src->failed) {
		source_fail(src, -ENOMEM, "out of memory");
	} else if (!src->failed && src->bad_line) {
		src->line = src->bad_line;
		config_validate(src->cfg, src->why, sizeof(src->why));
		source_fail(src, -EINVAL, NULL);
	}
	return src->failed ? src->status : 0;
}

int config_read_file(struct emf_config *cfg, const char *path, char *err, size_t errlen)
{
	struct source src = { .cfg = cfg };
	struct stat st;
	int rc = 0;

	/* O_NONBLOCK: opening a pipe that nobody writes must not hang the program */
	src.fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (src.fd < 0) {
		rc = -errno;
		snprintf(err, errlen, "%s: %s", path, strerror(-rc));
		return rc;
	}
	if (fstat(src.fd, &st) || !S_ISREG(st.st_mode)) {
		rc = -EINVAL;
		snprintf(err, errlen, "%s: not a regular file", path);
	} else if ((rc = source_parse(&src))) {
		snprintf(err, errlen, "%s:%u: %s", path, src.line, src.why);
	}
	close(src.fd);
	return rc;
}

int config_find_policy(const char *name, char *out, char *err, size_t errlen)
{
	static const char *const beside[] = { "../policies", "../share/emfatier/policies" };
	const char *env = env_get("EMFATIER_POLICY_DIR");
	char dir[PATH_MAX / 2], shown[64];
	size_t len = strlen(name);

	if (strchr(name, '/') || (len > 5 && !strcmp(name + len - 5, ".conf"))) {
		if (snprintf(out, PATH_MAX, "%s", name) < PATH_MAX && !access(out, F_OK))
			return 0;
		snprintf(err, errlen, "%s: no such policy file", name);
		return -ENOENT;
	}
	if (env && *env && snprintf(out, PATH_MAX, "%s/%s.conf", env, name) < PATH_MAX &&
	    !access(out, F_OK))
		return 0;
	if (!where_dir(dir, sizeof(dir))) {
		for (size_t i = 0; i < sizeof(beside) / sizeof(beside[0]); i++) {
			if (snprintf(out, PATH_MAX, "%s/%s/%s.conf", dir, beside[i], name) <
				PATH_MAX &&
			    !access(out, F_OK))
				return 0;
		}
	} else {
		strcpy(dir, ".");
	}
	snprintf(err, errlen,
		 "%s: no such policy in %s%s%s/%s or %s/%s; name one of these or a FILE.conf",
		 config_printable(name, shown, sizeof(shown)), env ? env : "", env ? ", " : "", dir,
		 beside[0], dir, beside[1]);
	return -ENOENT;
}

int config_read_policy(struct emf_config *cfg, const char *name, char *err, size_t errlen)
{
	char path[PATH_MAX];
	int rc = config_find_policy(name, path, err, errlen);

	return rc ? rc : config_read_file(cfg, path, err, errlen);
}
