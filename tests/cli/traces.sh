#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The recorded tours of bench/traces, replayed: how far from Belady's optimum, and from an LRU,
# the default policy is at most. The optimum knows what comes; of the experts that a token will use, and
# of redis's keys, nobody else can: there a fixed set, chosen afterwards, is 2.4 points below it at 25%.
set -u
BUILD=$(cd "${BUILD:?the directory of the build outputs}" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
status=0
command -v xz >/dev/null || { echo "SKIPPED traces: no xz here (apt-get install xz-utils)"; exit 77; }

# points NAME AT25 AT50 AT75 AT90: below the optimum at most; and three below lru.
points() {
	local name=$1 said
	shift
	said=$("$BUILD/bench/policysim" "$here/../../bench/traces/$name.trace.xz" 2>&1 | awk -v most="$*" '
		BEGIN { split(most, m) }
		NR >= 3 && NR <= 6 {
			n++
			if ($2 - $3 > m[n]) print $1 " local: " $3 "% hits, the optimum is " $2 "%;"
			if ($6 - $3 > 3) print $1 " local: " $3 "% hits, lru has " $6 "%;"
		}
		END { if (n != 4) print "no numbers" }')
	if [ -z "$said" ]; then
		echo "ok traces: $name"
	else
		echo "not ok traces: $name:" $said
		status=1
	fi
}

points dense 2 1.5 1.5 2 # with the loading
points moe 5 4 2 1
points context 3 2.5 2 1.5
points redis 10.5 9.5 6 3

# Two threads share each matrix, and some blocks come twice a token: what was fetched ahead and is not
# touched in its turn must not keep the prefetcher from fetching more.
said=$("$BUILD/bench/policysim" "$here/../../bench/traces/dense.trace.xz" 2>&1 | awk '
	NR >= 8 && NR <= 10 && $2 + 0 < 95 { print $1 " local: " $2 " of what was issued was useful;" }
	NR >= 8 && NR <= 10 && $3 + 0 < 65 { print $1 " local: " $3 " of what is fetched was there in time;" }
	END { if (NR < 10) print "no numbers" }')
if [ -z "$said" ]; then
	echo "ok traces: dense, fetched ahead"
else
	echo "not ok traces: dense, fetched ahead:" $said
	status=1
fi
exit $status
