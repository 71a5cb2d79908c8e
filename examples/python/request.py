#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a program in a fresh machine and prints its output. Debian: python3-zmq python3-msgpack."""
import os
import sys

import msgpack
import zmq

socket = zmq.Context.instance().socket(zmq.REQ)
socket.connect(os.environ.get("BERTH_ENDPOINT", "tcp://127.0.0.1:5555"))
code = sys.argv[1] if len(sys.argv) > 1 else "print('hello from', __import__('socket').gethostname())"
body = {"code": code, "language": "python", "timeout_ms": 10_000}
socket.send_multipart([b"BERTH/1", msgpack.packb({"id": 1, "op": "run", "body": body})])
reply = msgpack.unpackb(socket.recv_multipart()[1])
if not reply["ok"]:
    sys.exit(f"{reply['error']['name']}: {reply['error']['detail']}")
outcome = reply["body"]
sys.stdout.buffer.write(outcome["stdout"])
sys.stderr.buffer.write(outcome["stderr"])
print(outcome["state"], outcome["exit_code"], f"{outcome['wall_us'] / 1000:.1f} ms", file=sys.stderr)
