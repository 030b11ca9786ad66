#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A container whose program is tiered by the host's emfatier, with 8 GiB of local memory and
# a file on a volume as its far tier. IMAGE and what follows are yours: container.sh IMAGE CMD...
set -eu
engine=${ENGINE:-podman}
exec "$engine" run --rm \
	--device /dev/userfaultfd \
	-v /usr/bin/emfatier:/opt/emfatier/bin/emfatier:ro \
	-v /usr/bin/tierstat:/opt/emfatier/bin/tierstat:ro \
	-v /usr/lib/libemfatier.so:/opt/emfatier/lib/libemfatier.so:ro \
	-v /usr/lib/emfatier:/opt/emfatier/lib/emfatier:ro \
	-v emfatier-far:/far \
	--entrypoint /opt/emfatier/bin/emfatier \
	"$1" run --local 8G --store file:/far --summary -- "${@:2}"
