#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh BUILD: all benchmarks.
set -u

here=$(cd "$(dirname "$0")" && pwd)
build=${1:?usage: run.sh BUILD}
status=0
"$here/sweep.sh" "$build" || status=1
echo
"$here/true.sh" "$build" || status=1
exit $status
