/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "../common/say.h"
#include "config.h"
#include "config_memory.h"
#include "emfatier-provider.h"
#include "kernel.h"
#include "probe.h"
#include "rundir.h"
#include "self.h"

#define GIB (1024.0 * 1024.0 * 1024.0)
#define MAX_MAP_COUNT 65530ull /* the kernel's default */

__attribute__((format(printf, 3, 4))) static bool report(const char *what, bool ok,
							 const char *format, ...)
{
	va_list ap;

	printf("%-20s %-4s ", what, ok ? "ok" : "no");
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
	return ok;
}

/* The file's first line; "" when it can't be read. */
static const char *first_line(const char *path, char *out, size_t len)
{
	FILE *f = fopen(path, "re");

	out[0] = '\0';
	if (f && fgets(out, (int)len, f))
		out[strcspn(out, "\n")] = '\0';
	if (f)
		fclose(f);
	return out;
}

static void kernel_version(void)
{
	struct utsname uts;

	uname(&uts);
	report("kernel", true, "%s %s %s", uts.sysname, uts.release, uts.machine);
}

static const char *permitted_by(enum probe_uffd_way way)
{
	char line[8];

	if (way == UFFD_BY_DEVICE)
		return "/dev/userfaultfd";
	first_line("/proc/sys/vm/unprivileged_userfaultfd", line, sizeof(line));
	return strcmp(line, "1") ? "privilege (root's)" : "vm.unprivileged_userfaultfd=1";
}

/* What is still to be done about the device. */
static const char *device_group(void)
{
	static char text[96];
	struct stat st;
	struct group *group;

	if (stat("/dev/userfaultfd", &st))
		return " (needs Linux 6.1)";
	group = st.st_gid && (st.st_mode & 0060) == 0060 ? getgrgid(st.st_gid) : NULL;
	if (!group)
		return " (see 60-emfatier.rules)";
	snprintf(text, sizeof(text), ": group %.32s has it", group->gr_name);
	return text;
}

/* What starts containers here, or NULL when this is none. */
static const char *container(void)
{
	if (getenv("KUBERNETES_SERVICE_HOST"))
		return "Kubernetes";
	if (!access("/run/.containerenv", F_OK))
		return "Podman";
	if (!access("/.dockerenv", F_OK))
		return "Docker";
	return getenv("container"); /* systemd-nspawn and others */
}

/* The flags that let a container in. */
static void container_flags(void)
{
	const char *kind = container();

	if (!kind)
		return;
	printf("%25s This is a container (%.16s): ", "", kind);
	if (!strcmp(kind, "Kubernetes"))
		printf("give it the capability SYS_PTRACE\n%25s and a seccomp profile that allows "
		       "userfaultfd.\n",
		       "");
	else
		printf("run it with --device /dev/userfaultfd,\n%25s or with --cap-add SYS_PTRACE "
		       "and a seccomp profile that allows userfaultfd.\n",
		       "");
}

static bool userfaultfd(uint64_t *features)
{
	enum probe_uffd_way way;
	int rc = probe_userfaultfd(features, &way);

	if (!rc)
		return report("userfaultfd", true, "allowed, by %s", permitted_by(way));
	if (rc == -EPERM || rc == -EACCES) {
		if (uffd_user_mode_only())
			report("userfaultfd", false,
			       "for faults in user mode only: system calls on far memory would "
			       "fail.");
		else
			report("userfaultfd", false,
			       "not allowed. In a container its seccomp profile must allow the "
			       "call.");
		printf("%25s Run as root; or as root: sysctl vm.unprivileged_userfaultfd=1,\n"
		       "%25s or give this user access to /dev/userfaultfd%s.\n",
		       "", "", device_group());
		container_flags();
		return false;
	}
	return report("userfaultfd", false, "%s. Needs a kernel with CONFIG_USERFAULTFD",
		      strerror(-rc));
}

#define UNSEEN "what a program does to its memory past libc is not seen"

static const struct feature {
	const char *name;
	uint64_t bit;
	const char *without; /* what is lost; NULL: emfatier can't do without */
	const char *since;
} kernel_features[] = {
	/* by number where the headers of Debian 12 lack the name */
	{ "  write protection", UFFD_FEATURE_PAGEFAULT_FLAG_WP, NULL, "5.7" },
	{ "  MOVE", 1u << 16, "pages are copied: slower", "6.8" },
	{ "  POISON", 1u << 14, "lost memory can't be marked page by page", "6.6" },
	{ "  EVENT_REMAP", UFFD_FEATURE_EVENT_REMAP, UNSEEN, "4.11" },
	{ "  EVENT_REMOVE", UFFD_FEATURE_EVENT_REMOVE, UNSEEN, "4.11" },
	{ "  EVENT_UNMAP", UFFD_FEATURE_EVENT_UNMAP, UNSEEN, "4.11" },
};

static bool features_of(uint64_t features)
{
	bool can = true;

	for (size_t i = 0; i < sizeof(kernel_features) / sizeof(kernel_features[0]); i++) {
		const struct feature *f = &kernel_features[i];

		if (!(features & f->bit)) {
			report(f->name, false, "since Linux %s; %s", f->since,
			       f->without ? f->without : "emfatier can't work without it");
			can &= f->without != NULL;
		} else if (!probe_feature(f->bit)) {
			report(f->name, false, "needs the capability CAP_SYS_PTRACE; %s",
			       f->without ? f->without : "emfatier can't work without it");
			can &= f->without != NULL;
		} else {
			report(f->name, true, "%s", f->without ? "" : "required");
		}
	}
	return can;
}

static bool pagemap_scan(void)
{
	int rc = probe_pagemap_scan();

	if (rc == -ENOENT || rc == -EACCES)
		return report("PAGEMAP_SCAN", false, "/proc/self/pagemap: %s; mount /proc",
			      strerror(-rc));
	if (rc)
		report("PAGEMAP_SCAN", false,
		       "%s; since Linux 6.7. Pages are looked up one by one: slower",
		       strerror(-rc));
	else
		report("PAGEMAP_SCAN", true, "%s", "");
	return true;
}

static void huge_pages(void)
{
	static const char path[] = "/sys/kernel/mm/transparent_hugepage/enabled";
	char line[128];

	first_line(path, line, sizeof(line));
	if (!line[0] || strstr(line, "[never]"))
		report("huge pages", false, "%s. Moves are slower; as root: echo madvise > %s",
		       line[0] ? line : "not in this kernel", path);
	else
		report("huge pages", true, "%s", line);
}

static void map_count(void)
{
	char line[64];
	uint64_t count;

	first_line("/proc/sys/vm/max_map_count", line, sizeof(line));
	if (parse_uint(line, &count) && count < MAX_MAP_COUNT)
		report("vm.max_map_count", false, "%s; as root: sysctl vm.max_map_count=%llu", line,
		       MAX_MAP_COUNT);
	else
		report("vm.max_map_count", true, "%s", line[0] ? line : "unknown");
}

static void overcommit(void)
{
	char line[64];

	first_line("/proc/sys/vm/overcommit_memory", line, sizeof(line));
	if (!strcmp(line, "2"))
		report("vm.overcommit", false,
		       "2: allocations beyond local memory fail; as root: sysctl "
		       "vm.overcommit_memory=0 (or 1)");
	else
		report("vm.overcommit", true, "%s%s", line,
		       strcmp(line, "0") ? ""
					 : ": one allocation above all memory and swap fails; 1 "
					   "allows it");
}

static void memory(void)
{
	struct emf_config cfg;
	struct memory_limit m;

	memory_limit_read("", &m);
	config_defaults(&cfg);
	if (m.cgroup == UINT64_MAX)
		report("memory", true, "%.1f GiB, no cgroup limit;", (double)m.host / GIB);
	else
		report("memory", true, "%.1f GiB by cgroup limit, of the host's %.1f GiB;",
		       (double)m.cgroup / GIB, (double)m.host / GIB);
	printf("%25s local.limit=auto is %.1f GiB\n", "", (double)config_limit_bytes(&cfg) / GIB);
}

static void io_uring(void)
{
	int rc = probe_io_uring();

	if (rc)
		report("io_uring", false,
		       "%s; file stores work without it, slower. As root: sysctl "
		       "kernel.io_uring_disabled=0,\n%25s in a container its seccomp profile must "
		       "allow io_uring",
		       strerror(-rc), "");
	else
		report("io_uring", true, "%s", "");
}

static bool library(void)
{
	char path[PATH_MAX];

	if (self_find("libemfatier.so", path, sizeof(path)))
		return report("libemfatier.so", true, "%s", path);
	return report("libemfatier.so", false, "%s: not found; build or install it with this tool",
		      path);
}

/* A provider as the store would load it. True: it is one, and can be used. */
static bool provider(const char *dir, const char *file)
{
	char path[PATH_MAX], name[64];
	const struct emf_provider *p;
	void *dl;
	bool ok;

	snprintf(name, sizeof(name), "  %.*s", (int)strcspn(file, "."), file);
	if (snprintf(path, sizeof(path), "%s/%s", dir, file) >= (int)sizeof(path))
		return false;
	dl = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!dl)
		return report(name, false, "%s", dlerror());
	p = dlsym(dl, "emf_provider");
	/* beside the providers: parts of the store that are loaded when a setting asks for them */
	if (!p && (dlsym(dl, "emf_aead") || dlsym(dl, "emf_parity"))) {
		report(name, true, "%s", "");
		dlclose(dl);
		return false;
	}
	if (!p)
		ok = report(name, false, "%s: is no provider; remove it", path);
	else if (p->abi != EMF_PROVIDER_ABI)
		ok = report(name, false, "is of another version; reinstall it");
	else
		ok = report(name, true, "%s", "");
	dlclose(dl);
	return ok;
}

static int is_library(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return n > 3 && !strcmp(e->d_name + n - 3, ".so");
}

static bool providers(void)
{
	char dir[PATH_MAX], beside[PATH_MAX];
	struct dirent **list = NULL;
	unsigned usable = 0;
	int n = -1;

	if (self_find("providers", beside, sizeof(beside)) ||
	    self_find("emfatier/providers", dir, sizeof(dir))) {
		if (!access(beside, F_OK))
			memcpy(dir, beside, sizeof(dir));
		n = scandir(dir, &list, is_library, alphasort);
	}
	if (n <= 0)
		return report("providers", false, "none in %s; build or install them", beside);
	report("providers", true, "%s", dir);
	for (int i = 0; i < n; i++) {
		usable += provider(dir, list[i]->d_name);
		free(list[i]);
	}
	free(list);
	return usable > 0;
}

static void file_store(void)
{
	const char *cache = getenv("XDG_CACHE_HOME");
	const char *dir = cache && *cache == '/' && !access(cache, W_OK) ? cache : "/var/tmp";
	struct statvfs fs;
	struct statfs type;

	if (!statfs(dir, &type) && type.f_type == TMPFS_MAGIC)
		report("default store", false,
		       "%s is a tmpfs: what goes there stays in memory; name another by --store",
		       dir);
	else if (statvfs(dir, &fs) || access(dir, W_OK))
		report("default store", false, "%s: %s; name one by --store", dir, strerror(errno));
	else
		report("default store", true, "a file in %s, %.1f GiB free", dir,
		       (double)fs.f_bavail * (double)fs.f_frsize / GIB);
}

static void runtime_dir(void)
{
	char dir[PATH_MAX];
	int rc = run_dir(dir, sizeof(dir), false);

	if (rc && rc != -ENOENT)
		report("run directory", false,
		       "%s: %s; tierstat sees nothing. Set EMFATIER_RUN_DIR", dir, strerror(-rc));
	else
		report("run directory", true, "%s%s", dir, rc ? ", made by the first program" : "");
}

int doctor_main(int argc, char **argv)
{
	uint64_t features = 0;
	bool can;

	if (argc > 1)
		return say(EXIT_USAGE, "doctor: takes no argument, so not %s", argv[1]);
	kernel_version();
	can = userfaultfd(&features);
	if (can)
		can = features_of(features);
	can &= pagemap_scan();
	huge_pages();
	map_count();
	overcommit();
	memory();
	io_uring();
	can &= library();
	can &= providers();
	file_store();
	runtime_dir();
	printf("\n%s\n", can ? "Programs can be managed here."
			     : "Programs can't be managed here: see the lines with \"no\" above.");
	return can ? 0 : EXIT_WRONG;
}
