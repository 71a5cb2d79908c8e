# SPDX-License-Identifier: Apache-2.0
"""A client of the protocol in a few lines, for the scripts of the tests."""
import json
import os
import sys
import threading
import time

import msgpack
import zmq

ROUTER, IPC, HTTP = (os.environ[n] for n in ("BERTH_ROUTER", "BERTH_ENDPOINT", "BERTH_HTTP"))
ROUTER_PORT = ROUTER.rsplit(":", 1)[1]
HTTP_PORT = HTTP.rsplit(":", 1)[1].strip("/")
TERMINAL = {"exited", "signalled", "timed_out", "out_of_memory", "cancelled", "blocked",
            "machine_lost", "interrupted"}


class Refused(Exception):
    """The server answered with a refusal."""

    def __init__(self, error):
        super().__init__(f"{error['name']}: {error['detail']}")
        self.name, self.detail = error["name"], error["detail"]


class Client:
    """One connection. `ask` waits for its answer; `send` and `receive` leave many in flight."""

    def __init__(self, kind=zmq.DEALER, endpoint=ROUTER):
        self.socket = zmq.Context.instance().socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 60_000)
        self.socket.connect(endpoint)
        self.last = 0

    def send(self, op, **body):
        self.last += 1
        self.socket.send_multipart(
            [b"BERTH/1", msgpack.packb({"id": self.last, "op": op, "body": body})])
        return self.last

    def receive(self):
        reply = msgpack.unpackb(self.socket.recv_multipart()[-1])
        return reply["id"], reply["body"] if reply["ok"] else Refused(reply["error"])

    def ask(self, op, **body):
        wanted = self.send(op, **body)
        got, answer = self.receive()
        assert got == wanted, (got, wanted)
        if isinstance(answer, Refused):
            raise answer
        return answer


_own = threading.local()


def ask(op, **body):
    if not hasattr(_own, "client"):
        _own.client = Client()
    return _own.client.ask(op, **body)


def run(language, code, **body):
    return ask("run", language=language, code=code, **body)


def python(code, **body):
    return run("python", code, **body)


def cell(session, code, **body):
    """Runs code in the session's live Python."""
    return python(code, session=session, kernel=True, **body)


def value(ended):
    """The first result of a cell, as text."""
    return ended["cell"]["results"][0]["data"]["text/plain"]


def refused(op, **body):
    """Name of the refusal that this gets; it must get one."""
    try:
        answer = Client().ask(op, **body)
    except Refused as error:
        return error.name
    raise AssertionError(f"{op} was not refused: {answer}")


def until(is_so, what, seconds=60):
    """Waits until something is so; fails after a limit."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"never so: {what}"
        time.sleep(0.01)


def output_until(job, wanted, stream="stdout"):
    """Reads a job's output until it holds something."""
    text = b""
    while wanted not in text:
        part = ask("read", job=job, wait_ms=20_000, **{stream + "_offset": len(text)})
        text += part[stream]
        assert wanted in text or not part.get("ended"), (text, part.get("ended"))
    return text


def end_of(job):
    """Outcome of a job once it ended, and all of its standard output."""
    text, err = b"", b""
    while True:
        part = ask("read", job=job, wait_ms=20_000, stdout_offset=len(text),
                   stderr_offset=len(err))
        text += part["stdout"]
        err += part["stderr"]
        if part.get("ended"):
            return part["ended"], text, err
