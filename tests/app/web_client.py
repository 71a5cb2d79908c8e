# SPDX-License-Identifier: Apache-2.0
"""HTTP, server-sent events and WebSockets with nothing but the standard library, for the scripts of
the tests. BERTH_HTTP says where the server is."""
import base64
import hashlib
import json
import os
import socket
import struct
import time
import urllib.error
import urllib.parse
import urllib.request

URL = os.environ["BERTH_HTTP"]
WAIT = 90


def call(path, body=None, method=None, headers=None):
    """Status, header fields and body of one request; JSON is parsed."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data=data, method=method,
                                     headers={"Content-Type": "application/json",
                                              **(headers or {})})
    try:
        answer = urllib.request.urlopen(request, timeout=WAIT)
    except urllib.error.HTTPError as error:
        answer = error
    text = answer.read().decode()
    is_json = "json" in answer.headers.get("Content-Type", "")
    return answer.status, answer.headers, json.loads(text) if is_json else text


def post(path, body, **more):
    status, _, answer = call(path, body, "POST", **more)
    assert status in (200, 202), (path, status, answer)
    return answer


def get(path, **more):
    status, _, answer = call(path, **more)
    assert status == 200, (path, status, answer)
    return answer


def _connect():
    where = urllib.parse.urlparse(URL)
    made = socket.create_connection((where.hostname, where.port), timeout=WAIT)
    return made, where.netloc


class Events:
    """A stream of server-sent events. Iterating gives (name, data); close() leaves it."""

    def __init__(self, path, body=None, headers=None):
        self.socket, host = _connect()
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: {host}",
                 "Accept: text/event-stream", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        data = b"" if body is None else json.dumps(body).encode()
        if body is not None:
            lines.append(f"Content-Length: {len(data)}")
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            self.headers[name.lower()] = value

    def _lines(self):
        text = b""
        while size := int(self.file.readline(), 16):
            text += self.file.read(size)
            self.file.read(2)
            while b"\n" in text:
                line, _, text = text.partition(b"\n")
                yield line.decode()

    def __iter__(self):
        name, data = None, ""
        for line in self._lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data += line[6:]
            elif not line and name:
                yield name, json.loads(data)
                name, data = None, ""

    def close(self):
        self.file.close()
        self.socket.close()


class WebSocket:
    """RFC 6455, as far as a client of text messages needs it."""

    def __init__(self, path="/ws"):
        self.socket, host = _connect()
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
                             f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                             "Sec-WebSocket-Version: 13\r\n\r\n").encode())
        self.file = self.socket.makefile("rb")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.file.readline()
        assert b" 101 " in head, head
        accept = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        assert base64.b64encode(accept) in head, head

    def _frame(self, opcode, data):
        mask = os.urandom(4)
        size = len(data)
        head = bytes([0x80 | opcode])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 65536:
            head += b"\xfe" + struct.pack(">H", size)
        else:
            head += b"\xff" + struct.pack(">Q", size)
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(data))
        self.socket.sendall(head + mask + masked)

    def send(self, message):
        text = message if isinstance(message, str) else json.dumps(message)
        self._frame(1, text.encode())

    def receive(self):
        """The next message; None when the server closed."""
        text = b""
        while True:
            head = self.file.read(2)
            if len(head) < 2:
                return None
            size = head[1] & 0x7F
            if size == 126:
                size, = struct.unpack(">H", self.file.read(2))
            elif size == 127:
                size, = struct.unpack(">Q", self.file.read(8))
            data = self.file.read(size)
            opcode = head[0] & 0x0F
            if opcode == 8:
                return None
            if opcode == 9:
                self._frame(10, data)
            elif opcode != 10:
                text += data
                if head[0] & 0x80:
                    return json.loads(text)

    def until(self, kind):
        """Messages up to the first of a kind, that one last."""
        seen = []
        while True:
            message = self.receive()
            assert message is not None, (kind, seen)
            seen.append(message)
            if message["response_type"] == kind:
                return seen

    def close(self):
        self.file.close()
        self.socket.close()


def until(is_so, what, seconds=WAIT):
    """Waits until something is so; fails after a limit."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"never so: {what}"
        time.sleep(0.02)
