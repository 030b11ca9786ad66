#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every operation in every state, with and without MOVE: all of tests/whole/matrix.sh.
MATRIX=all exec "$(dirname "$0")/../whole/matrix.sh"
