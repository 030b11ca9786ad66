#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Ten minutes of random calls with most of the memory far, some of them past libc, and some
# without us: tests/whole/model.sh.
MODEL_SECONDS=${MODEL_SECONDS:-100} MODEL_RAW=${MODEL_RAW:-5} exec "$(dirname "$0")/../whole/model.sh"
