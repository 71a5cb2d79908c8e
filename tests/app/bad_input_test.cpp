// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"

using namespace berth::test;

TEST_CASE("Every malformed message is answered with its reason, and changes nothing") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
def exchange(*frames):
    client = Client()
    client.socket.send_multipart(list(frames))
    reply = msgpack.unpackb(client.socket.recv_multipart()[-1])
    assert not reply["ok"] and reply["error"]["detail"], reply
    return reply["error"]["name"]

def body(**members):
    return msgpack.packb({"id": 1, "op": "run", "body": members})

before = ask("history", limit=1)["total"]
jobs = ask("pool")["jobs_total"]
ok = {"language": "python", "code": "print(1)"
}
bomb = b"\x83\xa2id\x01\xa2op\xa3run\xa4body" + b"\x91" * 100_000 + b"\xc0"
wide = b"\x83\xa2id\x01\xa2op\xa3run\xa4body\xdf\xff\xff\xff\xff"
long_text = b"\x83\xa2id\x01\xa2op\xa3run\xa4body\x81\xa4code\xdb\xff\xff\xff\xff"
bad_text = b"\x83\xa2id\x01\xa2op\xa3run\xa4body\x82\xa8language\xa4bash\xa4code\xa2\xff\xfe"
cases = {
    "unknown operation": ((b"BERTH/1", msgpack.packb({"id": 1, "op": "explode"})),
                          {"unsupported", "malformed", "not_found"}),
    "another version": ((b"BERTH/2", body(**ok)), {"unsupported"}),
    "no protocol": ((b"hello", body(**ok)), {"unsupported", "malformed"}),
    "one frame": ((b"BERTH/1",), {"malformed"}),
    "a frame too many": ((b"BERTH/1", body(**ok), b"more"), {"malformed"}),
    "empty frame": ((b"BERTH/1", b""), {"malformed"}),
    "not msgpack": ((b"BERTH/1", b"\xc1\xc1\xc1"), {"malformed"}),
    "not a map": ((b"BERTH/1", msgpack.packb([1, 2])), {"malformed"}),
    "rest behind the map": ((b"BERTH/1", body(**ok) + b"\x01"), {"malformed"}),
    "nested 100,000 deep": ((b"BERTH/1", bomb), {"malformed", "too_large"}),
    "a map of 4 billion": ((b"BERTH/1", wide), {"malformed", "too_large"}),
    "a text of 4 GiB": ((b"BERTH/1", long_text), {"malformed", "too_large"}),
    "no UTF-8": ((b"BERTH/1", bad_text), {"malformed"}),
    "body is a number": ((b"BERTH/1", msgpack.packb({"id": 1, "op": "run", "body": 5})),
                         {"malformed"}),
    "op is a number": ((b"BERTH/1", msgpack.packb({"id": 1, "op": 5, "body": ok})), {"malformed"}),
    "negative time": ((b"BERTH/1", body(**ok, timeout_ms=-1)), {"malformed"}),
    "no time": ((b"BERTH/1", body(**ok, timeout_ms=0)), {"malformed"}),
    "time of ages": ((b"BERTH/1", body(**ok, timeout_ms=2**63)), {"malformed", "too_large"}),
    "memory of a star": ((b"BERTH/1", body(**ok, memory_mib=2**50)), {"malformed", "too_large"}),
    "time is text": ((b"BERTH/1", body(**ok, timeout_ms="soon")), {"malformed"}),
    "unknown language": ((b"BERTH/1", body(language="cobol", code="x")),
                         {"malformed", "unsupported"}),
    "no code": ((b"BERTH/1", body(language="python")), {"malformed"}),
    "args of numbers": ((b"BERTH/1", body(**ok, args=[1])), {"malformed"}),
    "a NUL in args": ((b"BERTH/1", body(**ok, args=["a\0b"])), {"malformed"}),
    "a bad name in env": ((b"BERTH/1", body(**ok, env={"A=B": "c"})), {"malformed"}),
    "a file above the root": (
        (b"BERTH/1", body(**ok, files=[{"path": "a\0b", "data": b""}])), {"malformed"}),
    "unknown session": ((b"BERTH/1", body(**ok, session="nowhere")), {"not_found"}),
}
wrong = []
for name, (frames, allowed) in cases.items():
    try:
        got = exchange(*frames)
    except (zmq.Again, AssertionError) as error:
        got = repr(error)
    if got not in allowed:
        wrong.append((name, got, allowed))
assert not wrong, wrong
assert ask("history", limit=1)["total"] == before
assert ask("pool")["jobs_total"] == jobs
assert python("print(1)")["stdout"] == b"1\n"
)py");
}

TEST_CASE("A detail names the member that is wrong") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
for member, value in (("timeout_ms", -1), ("args", "text"), ("memory_mib", "much"), ("code", 5)):
    try:
        ask("run", **{"language": "python", "code": "1", member: value})
        raise AssertionError(member)
    except Refused as error:
        assert error.name == "malformed" and member in error.detail, (member, error)
)py");
}

TEST_CASE("A client that leaves with requests in flight, or speaks no ZeroMQ, disturbs nobody") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
import socket
for _ in range(20):
    leaving = Client()
    for _ in range(5):
        leaving.send("run", language="bash", code="true")
    leaving.socket.close()
for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\xff" + b"\0" * 8 + b"\x7f" + b"A" * 1000):
    raw = socket.create_connection(("127.0.0.1", int(ROUTER_PORT)))
    raw.sendall(garbage)
    raw.close()
assert python("print(1)")["stdout"] == b"1\n"
assert ask("health")["status"] == "healthy"
)py");
}
