/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* memmem */
#include "program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SCRIPT_DEPTH 5 /* interpreters that are scripts: the kernel's own bound */

static int executable(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || access(path, X_OK))
		return -EACCES;
	return 0;
}

int program_find(const char *command, char *path, size_t len)
{
	const char *dirs = getenv("PATH");
	int rc = -ENOENT;

	if (!*command)
		return -ENOENT;
	if (strchr(command, '/')) {
		if (snprintf(path, len, "%s", command) >= (int)len)
			return -ENAMETOOLONG;
		return executable(path);
	}
	if (!dirs)
		dirs = "/bin:/usr/bin"; /* as execvp */
	for (size_t n;; dirs += n + 1) {
		n = strcspn(dirs, ":");
		/* an empty part is the current directory */
		if (snprintf(path, len, "%.*s/%s", n ? (int)n : 1, n ? dirs : ".", command) <
		    (int)len) {
			int r = executable(path);

			if (!r)
				return 0;
			if (r == -EACCES)
				rc = r;
		}
		if (!dirs[n])
			return rc;
	}
}

/* Would the kernel start it with rights that the caller has not? Then ld.so ignores us. */
static bool privileged(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return false;
	if ((st.st_mode & S_ISUID) && st.st_uid != getuid())
		return true;
	if ((st.st_mode & S_ISGID) && (st.st_mode & S_IXGRP) && st.st_gid != getgid())
		return true;
	return getuid() != 0 && fgetxattr(fd, "security.capability", NULL, 0) > 0;
}

static bool dynamic(int fd, const ElfW(Ehdr) * head)
{
	for (unsigned i = 0; i < head->e_phnum; i++) {
		ElfW(Phdr) phdr;
		off_t at = (off_t)(head->e_phoff + (size_t)i * head->e_phentsize);

		if (pread(fd, &phdr, sizeof(phdr), at) != (ssize_t)sizeof(phdr))
			return false;
		if (phdr.p_type == PT_INTERP)
			return true;
	}
	return false;
}

/* Is it for another machine than this tool, and so than the library? */
static bool foreign(const ElfW(Ehdr) * head)
{
	ElfW(Ehdr) own;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	bool known = fd >= 0 && pread(fd, &own, sizeof(own), 0) == (ssize_t)sizeof(own);

	if (fd >= 0)
		close(fd);
	return known && (own.e_ident[EI_CLASS] != head->e_ident[EI_CLASS] ||
			 own.e_machine != head->e_machine);
}

/* "#! interpreter argument": the interpreter, cut out in place; NULL: no script. */
static char *interpreter(char *head)
{
	char *p;

	if (head[0] != '#' || head[1] != '!')
		return NULL;
	p = head + 2 + strspn(head + 2, " \t");
	p[strcspn(p, " \t\n")] = '\0';
	return *p ? p : NULL;
}

const char *program_unmanaged(const char *path)
{
	char script[PATH_MAX];

	for (int depth = 0; depth < SCRIPT_DEPTH; depth++) {
		union {
			ElfW(Ehdr) elf;
			char text[512];
		} head = { 0 };
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		const char *why = NULL;
		char *next;

		if (fd < 0)
			return NULL; /* executable, not readable: nothing to judge by */
		if (pread(fd, &head, sizeof(head) - 1, 0) < 0)
			head.text[0] = '\0';
		next = interpreter(head.text);
		if (!next && !memcmp(head.elf.e_ident, ELFMAG, SELFMAG)) {
			if (privileged(fd))
				why = "it runs with another user's rights (setuid)";
			else if (foreign(&head.elf))
				why = "it is for another kind of machine";
			else if (!dynamic(fd, &head.elf))
				why = "it is statically linked";
		}
		close(fd);
		if (!next)
			return why;
		snprintf(script, sizeof(script), "%s", next);
		path = script;
	}
	return NULL;
}

/* What their messages begin with, and nobody else's. */
static const struct {
	const char *text, *name;
} allocators[] = {
	{ "<jemalloc>: ", "jemalloc" },
	{ "mimalloc: warning: ", "mimalloc" },
	{ "tcmalloc: large alloc ", "tcmalloc" },
	{ "rpmalloc: ", "rpmalloc" },
};

const char *program_allocator(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	const char *found = NULL;
	struct stat st;
	char *map;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) || st.st_size < (off_t)sizeof(ElfW(Ehdr))) {
		close(fd);
		return NULL;
	}
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (map == MAP_FAILED)
		return NULL;
	for (size_t i = 0; !memcmp(map, ELFMAG, SELFMAG) && !found &&
			   i < sizeof(allocators) / sizeof(allocators[0]);
	     i++) {
		if (memmem(map, (size_t)st.st_size, allocators[i].text, strlen(allocators[i].text)))
			found = allocators[i].name;
	}
	munmap(map, (size_t)st.st_size);
	return found;
}
