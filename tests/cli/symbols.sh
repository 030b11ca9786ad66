#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The reserved path (what runs while a program thread is stopped in a fault) calls no
# allocator, no stdio, no dynamic linker, no resolver and nothing of pthreads but what
# the start needs: the undefined symbols of its objects are held against this list.
# And the preloaded library exports what it interposes, nothing else.
set -u
BUILD=$(cd "${BUILD:?the directory of the build outputs}" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
status=0

policies=$(cd "$here/../../src" && echo policy/*.c)
reserved="arena away block change control env fault fmt frame identity install kernel lead lock log mapped mover observe pages pinned region reshape sigfault slot source source_queue sparse take thrash transfer trap trap_calls trap_signals view ${policies//.c/}"
allowed=" _GLOBAL_OFFSET_TABLE_ __environ __start_emf_allowed __stop_emf_allowed __errno_location clock_gettime close eventfd fcntl fstat ftruncate getpid
	ioctl madvise memchr memcmp memcpy memfd_create memmove memset munlock open poll pread
	process_vm_readv read recvmsg sched_yield sendmsg socketpair strcat strchr strcmp strcpy strlen strncat strncmp strnlen strrchr syscall write "

# A debug build ends with what it finds.
case ${CFLAGS:-} in *EMF_DEBUG*) allowed+=" abort " ;; esac

defined=$(find "$BUILD/obj/src" -name '*.o' ! -path '*/provider/*' -exec nm --defined-only {} + |
	awk 'NF == 3 { print $3 }' | sort -u)
# undefined NAME KNOWN: what $BUILD/obj/src/NAME.o calls that is not in the list KNOWN.
undefined() {
	nm -u "$BUILD/obj/src/$1.o" | awk '{ print $2 }' | grep -vxF "$2" | sed "s|^|$1:|"
}
known=$(printf '%s\n' $allowed "$defined")
bad=$(for name in $reserved; do undefined "$name" "$known"; done)
if [ -z "$bad" ]; then
	echo "ok symbols: the reserved path"
else
	echo "not ok symbols: the reserved path: calls" $bad
	status=1
fi

# A policy can't reach into the engine: what it calls is of src/policy or of view.h.
known=$(printf '%s\n' list_append list_remove memset memcpy memmove _GLOBAL_OFFSET_TABLE_
	nm --defined-only "$BUILD"/obj/src/policy/*.o "$BUILD/obj/src/view.o" | awk 'NF == 3 { print $3 }')
bad=$(for name in $policies; do
	undefined "${name%.c}" "$known"
	grep -lE '#include "(block|region|engine|frame|slot|transfer)' "$here/../../src/$name"
done)
if [ -z "$bad" ]; then
	echo "ok symbols: policies see handles only"
else
	echo "not ok symbols: policies see handles only:" $bad
	status=1
fi

# The list in the map's first comment, and NAME@VERSION of each version.
want=$(awk '
	/^ \*\t/ { gsub(/[*\t ]/, ""); n = split($0, name, ";"); for (i = 1; i < n; i++) print name[i] }
	/^[A-Za-z]/ && !/local:/ { for (i = 3; i < NF; i++) { sub(";", "", $i); print $i "@" $1 } }
' "$here/../../preload/exports.map" | sort)
have=$(nm -D --defined-only "$BUILD/libemfatier.so" | awk '$2 != "A" { print $3 }' | sort)
if [ "$want" = "$have" ]; then
	echo "ok symbols: exports"
else
	echo "not ok symbols: exports: $(diff <(echo "$want") <(echo "$have") | grep '^[<>]' | tr '\n' ' ')"
	status=1
fi

# The file store's io_uring is its own: what the library answers to in liburing's place is the program's.
bad=$(nm -D "$BUILD/providers/file.so" | grep -o 'io_uring.*')
if [ -z "$bad" ]; then
	echo "ok symbols: the file store's own liburing"
else
	echo "not ok symbols: the file store's own liburing:" $bad
	status=1
fi
exit $status
