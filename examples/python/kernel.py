#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs cells in a live Python that keeps its variables. Debian: python3-zmq python3-msgpack."""
import os
import sys

import msgpack
import zmq

socket = zmq.Context.instance().socket(zmq.REQ)
socket.connect(os.environ.get("BERTH_ENDPOINT", "tcp://127.0.0.1:5555"))


def ask(op, **body):
    socket.send_multipart([b"BERTH/1", msgpack.packb({"id": 1, "op": op, "body": body})])
    reply = msgpack.unpackb(socket.recv_multipart()[1])
    return reply["body"] if reply["ok"] else sys.exit(reply["error"]["detail"])


for code in sys.argv[1:] or ["x = 20", "print('x is', x)", "x + 1", "x / 0"]:
    outcome = ask("run", agent_id="me", language="python", kernel=True, code=code)
    sys.stdout.buffer.write(outcome["stdout"])
    for result in outcome["cell"]["results"]:
        print("->", result["data"].get("text/plain", list(result["data"])))
    if outcome["cell"]["error"]:
        print(outcome["cell"]["error"]["name"] + ":", outcome["cell"]["error"]["value"])
