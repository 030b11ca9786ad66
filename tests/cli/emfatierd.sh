#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# emfatierd's command line. What it does with a device is tested in the lab (tests/vm).
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

cd "$WORK" || exit 1
umask 077
d=$BUILD/emfatierd
head -c 24 /dev/urandom | base64 >secret
cp secret open && chmod 640 open
cp secret others && chmod 602 others
echo short >short
mkfifo fifo

call "$d" --help
[ "$status" -eq 0 ] && grep -q '^usage: emfatierd' out && [ ! -s err ]
verdict "emfatierd --help"
call "$d" --version
[ "$status" -eq 0 ] && grep -qx 'emfatierd [0-9.]*' out
verdict "emfatierd --version"

# wrong TEXT OPTION...: exit 2 with one line that says TEXT
wrong() {
	local text=$1
	shift
	call "$d" "$@"
	cat out err >>said
	says 2 "$text"
	verdict "emfatierd $*: $text"
}
wrong 'say how much memory'
wrong 'unknown option' --size 2M --frobnicate
wrong 'without its value' --size
wrong 'what is here' --size 2M here
wrong 'not a size of 2M' --size 1M
wrong 'not a size of 2M' --size -2M
wrong 'not a size of 2M' --size 999999T
wrong 'not a size of 2M' --size 4Mx
wrong "not a node's number" --size 2M --node 1024
wrong "not a node's number" --size 2M --node -1
wrong '--node or --dax' --dax /dev/dax0.0 --node 0
wrong 'write an ADDRESS:PORT' --size 2M --listen host.example
wrong 'write an ADDRESS:PORT' --size 2M --listen 127.0.0.1:http
wrong 'write an ADDRESS:PORT' --size 2M --listen 300.0.0.1
for port in '' 0 -1 +80 ' 80' 65536 4294967297 99999999999999999999; do
	wrong 'write an ADDRESS:PORT' --size 2M --listen "127.0.0.1:$port"
	wrong 'write an ADDRESS:PORT' --size 2M --listen "[::1]:$port"
	wrong 'write an ADDRESS:PORT' --size 2M --metrics "127.0.0.1:$port"
done
wrong 'write an ADDRESS:PORT' --size 2M --metrics 'nowhere:1'
wrong 'write an ADDRESS:PORT' --size 2M --metrics 0
wrong 'write an ADDRESS:PORT' --size 2M --listen ''
wrong 'one too many' --size 2M $(printf -- '--listen 127.0.0.%d ' 1 2 3 4 5 6 7 8 9)
wrong 'not a time' --size 2M --lease 10
wrong 'not a time' --size 2M --lease 1ms
wrong 'not a time' --size 2M --drain 25h
wrong 'a name has' --size 2M --tenant 'a b=2M'
wrong 'a name has' --size 2M --tenant =2M
wrong 'write NAME=SIZE' --size 2M --tenant alice
wrong 'write NAME=SIZE' --size 2M --tenant alice=0
wrong 'named twice' --size 2M --tenant alice=2M --tenant alice=4M
wrong 'all tenants need a secret' --size 2M --tenant alice=2M,secret --tenant bob=2M
wrong 'No such file' --size 2M --secret-file missing
wrong 'by others than its owner' --size 2M --secret-file open
wrong 'by others than its owner' --size 2M --secret-file others
wrong 'less than 16 bytes' --size 2M --secret-file short
wrong 'not a plain file' --size 2M --secret-file fifo
wrong 'not a plain file' --size 2M --secret-file /
wrong 'by others than its owner' --size 2M --tenant alice=2M,open
for address in 0.0.0.0 :10810 10.0.0.1 '[::]:10810' :: ::ffff:10.0.0.1 '[fe80::1]'; do
	wrong 'give --secret-file' --size 2M --listen "$address"
done

if [ "$(id -u)" -eq 0 ]; then
	wrong 'there is no such user' --size 2M --user emf-nobody-of-this-name
	wrong 'must not be root' --size 2M --user root
else
	skipped "emfatierd --user" "only for root"
fi

# What is right comes as far as the device.
if [ -e /dev/infiniband/rdma_cm ]; then
	skipped "emfatierd: no device" "there is one"
else
	for options in '' '--secret-file secret --listen 0.0.0.0' '--listen ::1 --listen [::1]:7' \
		'--listen 127.1.2.3:4' '--listen ::ffff:127.0.0.1' '--listen 1234' '--node 0 --lease 5s --drain 1m' \
		'--tenant alice=1M,secret --tenant b.o-b_=1T --secret-file secret --listen [::]:1'; do
		# shellcheck disable=SC2086 # words
		call "$d" --size 2M $options
		cat out err >>said
		says 1 'there is no RDMA device'
		verdict "emfatierd --size 2M $options: comes as far as the device"
	done
fi
# No secret is said by anything, ever.
[ -s said ] && ! grep -qF "$(cat secret)" said
verdict "emfatierd: says no secret"

done_testing
