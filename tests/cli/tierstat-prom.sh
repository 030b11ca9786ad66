#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tierstat prom: its text by promtool, its page by curl's like and by a real Prometheus; the
# dashboard asks for nothing that there is not.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

cd "$WORK" || exit 1
tierstat=$BUILD/tierstat
mkdir -m 700 run
if ! ${CC:-cc} -I "$ROOT/include" -o fake "$HERE/fake_segment.c" 2>err || ! command -v python3 >/dev/null; then
	skipped "tierstat prom" "no compiler for the helper, or no python3"
	done_testing
fi
sleep 300 &
one=$!
STARTED=$one
./fake run $one 'llama "x\y"'

call "$tierstat" prom
[ "$status" -eq 0 ] && grep -qF "emfatier_local_bytes{pid=\"$one\",command=\"llama \\\"x\\\\y\\\"\"} 524288000" out &&
	grep -qF 'store="nbd://host/\"quoted\""} 1' out && grep -q '^emfatier_stall_seconds_total.* 12.345678901$' out &&
	grep -q '^emfatier_fault_latency_seconds_bucket.*le="+Inf"} 100$' out
verdict "prom: printed"
cp out page
call "$tierstat" prom -c nobody
[ "$status" -eq 0 ] && ! grep -v '^#' out | grep -q .
verdict "prom -c"
if command -v promtool >/dev/null; then
	promtool check metrics <page >out 2>err
	status=$?
	[ $status -eq 0 ] && [ ! -s out ] && [ ! -s err ]
	verdict "prom: promtool finds nothing to say"
else
	skipped "prom: promtool" "not installed"
fi

call "$tierstat" prom --textfile node/emfatier.prom
says 1 'node/emfatier.prom: No such file'
verdict "prom --textfile: no such directory"
mkdir node
call "$tierstat" prom --textfile node/emfatier.prom
[ "$status" -eq 0 ] && [ ! -s out ] && cmp -s node/emfatier.prom page && [ "$(ls node)" = emfatier.prom ] &&
	[ "$(stat -c %a node/emfatier.prom)" = 644 ]
verdict "prom --textfile"

python3 - "$ROOT/tools/grafana/emfatier.json" page >out 2>err <<'PY'
import json, re, sys
d = json.load(open(sys.argv[1]))
known = set(re.findall(r"^(emfatier_\w+)[ {]", open(sys.argv[2]).read(), re.M))
ids = [p["id"] for p in d["panels"]]
assert len(set(ids)) == len(ids) and d["uid"] and d["schemaVersion"] and d["title"]
asked = set(re.findall(r"emfatier_\w+", json.dumps([p["targets"] for p in d["panels"]])))
asked |= set(re.findall(r"emfatier_\w+", json.dumps(d["templating"])))
assert len(asked) > 10 and not asked - known, asked - known
for p in d["panels"]:
    g = p["gridPos"]
    assert p["title"] and p["targets"] and g["x"] + g["w"] <= 24
PY
status=$?
[ $status -eq 0 ]
verdict "prom: the dashboard asks for what there is"

free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
port=$(free_port)
"$tierstat" prom --listen 127.0.0.1:"$port" >served 2>served.err &
server=$!
STARTED="$STARTED $server"
wait_for 5 test -s served.err
if grep -q 'needs libmicrohttpd' served.err; then
	skipped "prom --listen" "no libmicrohttpd"
	done_testing
fi
python3 - "$port" page >out 2>err <<'PY'
import http.client, sys
def get(method, path, body=None):
    c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=20)
    c.request(method, path, body)
    r = c.getresponse()
    return r.status, r.getheader("Content-Type"), r.read().decode()
status, kind, text = get("GET", "/metrics")
assert status == 200 and kind.startswith("text/plain; version=0.0.4"), (status, kind)
assert text == open(sys.argv[2]).read()
assert get("HEAD", "/metrics")[0] == 200
assert get("GET", "/x")[0] == 404
assert get("POST", "/metrics", "x" * 100000)[0] == 405
assert get("GET", "/")[0] == 200
PY
status=$?
[ $status -eq 0 ] && grep -qx "tierstat: serving http://127.0.0.1:$port/metrics" served.err
verdict "prom --listen"
call "$tierstat" prom --listen 127.0.0.1:"$port"
[ "$status" -eq 1 ] && grep -q 'Address already in use' err
verdict "prom --listen: the port is taken"
call "$tierstat" prom --listen 127.0.0.1:x
says 2 'write ADDRESS:PORT'
verdict "prom --listen: no address"

if command -v prometheus >/dev/null; then
	web=$(free_port)
	cat >prometheus.yml <<-YML
		global: {scrape_interval: 500ms, scrape_timeout: 400ms}
		scrape_configs:
		  - job_name: emfatier
		    static_configs: [{targets: ["127.0.0.1:$port"]}]
	YML
	prometheus --config.file=prometheus.yml --storage.tsdb.path=tsdb --web.listen-address=127.0.0.1:"$web" \
		>prometheus.log 2>&1 &
	STARTED="$STARTED $!"
	python3 - "$web" >out 2>err <<'PY'
import json, sys, time, urllib.parse, urllib.request
def query(q):
    u = "http://127.0.0.1:%s/api/v1/query?%s" % (sys.argv[1], urllib.parse.urlencode({"query": q}))
    return json.load(urllib.request.urlopen(u, timeout=5))["data"]["result"]
seen = []
for i in range(200):
    try:
        seen = query("emfatier_local_bytes")
    except OSError:
        pass
    if seen:
        break
    time.sleep(0.2)
assert len(seen) == 1 and seen[0]["value"][1] == "524288000" and seen[0]["metric"]["job"] == "emfatier", seen
assert query("up")[0]["value"][1] == "1"
p99 = float(query("histogram_quantile(0.99, emfatier_fault_latency_seconds_bucket)")[0]["value"][1])
assert 65e-6 < p99 < 140e-6, p99
PY
	status=$?
	[ $status -eq 0 ] || tail -n 3 prometheus.log >>err
	[ $status -eq 0 ]
	verdict "prom: scraped by Prometheus"
else
	skipped "prom: scraped by Prometheus" "not installed"
fi
kill $server
wait $server
[ $? -eq 0 ]
verdict "prom --listen: ends when told"

done_testing
