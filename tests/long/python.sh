#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# CPython's own tests of what memory and processes do: those of its modules that pass
# without us. MODULES="test_mmap" runs only these.
# shellcheck source-path=SCRIPTDIR source=../whole/lib.bash source=../whole/observe.bash
. "$(dirname "$0")/../whole/lib.bash"
. "$(dirname "$0")/../whole/observe.bash"

# Debian's, whose tests are a package of their own, not what else may be in the way.
python=/usr/bin/python3
$python -c 'import test.test_mmap' 2>/dev/null || { skipped python "no python3 with its tests"; finish; }

export LIMIT=${LIMIT:-400} COMPARE=status PLAIN_OK=0 CONF='store.uri=mem:'
# Hundreds of short processes: each comes to far memory only a few times a second.
CHAOS=${PYTHON_CHAOS:-500}
for m in ${MODULES:-test_array test_mmap test_io test_threading test_fork1 test_subprocess \
	test_multiprocessing_fork test_multiprocessing_spawn}; do
	same "python $m" 24M $python -m test -u all,-largefile,-gui,-network,-urlfetch,-audio \
		--tempdir "$T" "$m"
done
finish
