#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Talks to a running server with curl. Usage: client.sh [URL]
set -eu
url=${1:-http://127.0.0.1:8080}

say() { printf '\n== %s\n' "$1"; }

say "health"
curl -fsS "$url/health"

say "run a program; the same agent_id keeps its machine and files"
curl -fsS "$url/api/llm/execute" -d '{"agent_id":"curl","language":"python","code":"print(6*7)"}'

say "the agent's machine"
vm=$(curl -fsS "$url/api/llm/vm-pool/curl" | sed -n 's/.*"vm_id":"\([^"]*\)".*/\1/p')
echo "$vm"

say "a file in, a program that reads it, the file out"
echo "hello" | curl -fsS "$url/api/vms/$vm/upload?path=note.txt" --data-binary @-
curl -fsS "$url/api/llm/execute" \
  -d "{\"vm_id\":\"$vm\",\"language\":\"bash\",\"code\":\"wc -c note.txt\"}"
curl -fsS "$url/api/vms/$vm/download?path=note.txt"

say "history"
curl -fsS "$url/api/vms/$vm/history?limit=5"

say "the end of the machine"
curl -fsS -X DELETE "$url/api/vms/$vm"
echo
