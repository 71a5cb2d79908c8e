#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Saves a machine, breaks it, takes it back. Usage: rollback.sh [URL]
set -eu
url=${1:-http://127.0.0.1:8080}

run() { curl -fsS "$url/api/llm/execute" -d "{\"vm_id\":\"$vm\",\"language\":\"bash\",\"code\":\"$1\"}"; echo; }
member() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

vm=$(curl -fsS -X POST "$url/api/vms" -d '{"vm_type":"focal-optimized"}' | member vm_id)
run "echo precious > note.txt"
snapshot=$(curl -fsS "$url/api/vms/$vm/snapshots" -d '{"name":"good"}' | member snapshot_id)
echo "saved as $snapshot"

run "rm note.txt; cat note.txt"
curl -fsS -X POST "$url/api/vms/$vm/rollback/$snapshot"
echo
run "cat note.txt"

curl -fsS "$url/api/vms/$vm/history"
echo
curl -fsS -X DELETE "$url/api/vms/$vm"
echo
