#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a module of JavaScript in a real browser, on a page of another origin than the server's.

    in_browser.py BROWSER MODULE SERVER_URL

The module finds the server's URL where Node has it, in process.argv[2]. Prints "all done", or what
the module threw, and exits with 0 or 1.
"""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

LIMIT_S = 240

PAGE = """<!doctype html><meta charset="utf-8"><title>berth</title>
<script type="module">
globalThis.process = { argv: ["", "", %s] };
let told = "all done";
try { await import("/module.mjs"); } catch (error) { told = String(error.stack || error); }
await fetch("/done", { method: "POST", body: told });
</script>
"""


def main():
    browser, module, server_url = sys.argv[1:]
    told = []
    over = threading.Event()

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = {"/": ("text/html", PAGE % json.dumps(server_url)),
                     "/module.mjs": ("text/javascript", pathlib.Path(module).read_text())}
            kind, text = found.get(self.path, ("text/plain", ""))
            self.answer(200 if self.path in found else 404, kind, text)

        def do_POST(self):
            told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.answer(200, "text/plain", "")
            over.set()

        def answer(self, status, kind, text):
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind + "; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        page = f"http://127.0.0.1:{site.server_address[1]}/"
        started = subprocess.Popen(
            [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-dev-shm-usage", "--remote-debugging-port=0", "--user-data-dir=" + profile,
             page],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": profile})  # what it leaves there goes with the profile
        try:
            over.wait(LIMIT_S)
        finally:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
    print(told[0] if told else "the page told nothing")
    return 0 if told == ["all done"] else 1


sys.exit(main())
