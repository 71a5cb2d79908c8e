#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Follows a job's output live over SUB, and fills every gap with `read`."""
import os
import sys

import msgpack
import zmq

requests, events = (zmq.Context.instance().socket(kind) for kind in (zmq.REQ, zmq.SUB))
requests.connect(os.environ.get("BERTH_ENDPOINT", "tcp://127.0.0.1:5555"))
events.connect(os.environ.get("BERTH_EVENTS", "tcp://127.0.0.1:5556"))
def ask(op, **body):
    requests.send_multipart([b"BERTH/1", msgpack.packb({"id": op, "op": op, "body": body})])
    reply = msgpack.unpackb(requests.recv_multipart()[1])
    return reply["body"] if reply["ok"] else sys.exit(reply["error"]["detail"])
job = ask("submit", language="python", code="import time\nfor i in range(5): print(i); time.sleep(.3)")["job"]
events.subscribe(f"job.{job}.")
seen, ended = 0, None
while not ended:
    part = ask("read", job=job, stdout_offset=seen)  # what was missed, or the end
    ended, seen = part.get("ended"), seen + len(part["stdout"])
    print(part["stdout"].decode(), end="", flush=True)
    while not ended and events.poll(1000):
        topic, event = events.recv_multipart()
        event = msgpack.unpackb(event)
        if not topic.endswith(b".stdout") or event["offset"] > seen: break  # a state, or a gap
        print(event["data"][seen - event["offset"]:].decode(), end="", flush=True)
        seen = max(seen, event["offset"] + len(event["data"]))
