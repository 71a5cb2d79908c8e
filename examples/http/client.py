# SPDX-License-Identifier: Apache-2.0
"""Runs a program over HTTP with the standard library. Usage: client.py [URL]"""
import json
import sys
import urllib.error
import urllib.request

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def post(path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refusal:
        sys.exit(f"{refusal.code}: {json.load(refusal)['error']}")


code = "n = 1\nfor i in range(1, 11): n *= i\nprint(n)"
done = post("/api/llm/execute", {"agent_id": "py", "language": "python", "code": code})
print(done["stdout"], end="")
sys.exit(done["exit_code"])
