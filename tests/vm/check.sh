#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# check.sh BUILD: all that needs a machine of the lab; the last line is as that of make check.
set -u
here=$(cd "$(dirname "$0")" && pwd)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for part in rdma tiers; do
	"$here/$part.sh" "${1:?usage: check.sh BUILD}" | tee -a "$log"
done
bad=$(grep -c '^not ok' "$log")
echo "$(grep -c '^ok' "$log") passed, $bad failed, $(grep -c '^SKIPPED' "$log") skipped"
[ "$bad" -eq 0 ]
