// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"

#include <fstream>

using namespace berth::test;

namespace {

/// The most memory that a process of the host ever had.
std::size_t peak_kib(pid_t pid) {
  std::ifstream status{"/proc/" + std::to_string(pid) + "/status"};
  std::size_t kib = 0;
  for (std::string word; status >> word;)
    if (word == "VmHWM:")
      status >> kib;
  return kib;
}

} // namespace

TEST_CASE("A file of 100 MB goes up and comes down while the server's memory stays") {
  NEEDS_SERVER();
  server_home home;
  server own{home};
  REQUIRE_SCRIPT(own, R"py(
ask("open_session", name="warm")
ask("files.write", session="warm", path="x", data=bytes(1 << 20))
ask("files.read", session="warm", path="x")
ask("close_session", session="warm")
)py");
  std::size_t before = 0;
  for (const auto& each : tree_of(own.program().pid()))
    before = std::max(before, peak_kib(each.pid));
  REQUIRE_SCRIPT(own, R"py(
import hashlib
ask("open_session", name="big", disk_mib=256, memory_mib=512)
part = os.urandom(1 << 20)
total = hashlib.sha256()
for i in range(100):
    told = ask("files.write", session="big", path="deep/er/big", data=part, offset=i << 20)
    total.update(part)
assert told["size"] == 100 << 20 and told["kind"] == "file" and told["mode"] == 0o644, told
down, got = hashlib.sha256(), 0
while True:
    slice = ask("files.read", session="big", path="/work/deep/er/big", offset=got)
    down.update(slice["data"])
    got += len(slice["data"])
    if slice["eof"]:
        break
assert got == 100 << 20 and down.digest() == total.digest()
told = python("import hashlib, os; p = '/work/deep/er/big'; os.utime(p); "
              "print(hashlib.sha256(open(p, 'rb').read()).hexdigest())", session="big")
assert told["stdout"].decode().strip() == total.hexdigest(), told
)py");
  std::size_t after = 0;
  for (const auto& each : tree_of(own.program().pid()))
    after = std::max(after, peak_kib(each.pid));
  INFO(before << " KiB before, " << after << " KiB after");
  CHECK(after < before + 32 * 1024);
}

TEST_CASE("Files are listed, told, made, moved and removed, and belong to the programs") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
s = ask("open_session", name="desk")["session"]
def names(path="/work", depth=1):
    return [e["path"] for e in ask("files.list", session=s, path=path, depth=depth)["entries"]]
made = ask("files.make_dir", session=s, path="a/b")
assert made["path"] == "/work/a/b" and made["kind"] == "directory", made
assert refused("files.make_dir", session=s, path="a/b") == "already_exists"
wrote = ask("files.write", session=s, path="a/b/run.sh", data=b"#!/bin/sh\nid -u\n", mode=0o755)
assert (wrote["size"], wrote["mode"]) == (16, 0o755), wrote
mine = run("bash", "./a/b/run.sh; touch mine; stat -c %U a/b/run.sh; rm a/b/run.sh; id -un",
           session=s)
uid, owner, user = mine["stdout"].decode().split()
assert mine["exit_code"] == 0 and owner == user, mine
assert wrote["owner"] == user, (wrote, user)
assert names() == ["/work/a", "/work/mine"] and names(depth=2)[1] == "/work/a/b", names(depth=2)
assert ask("files.list", session=s)["entries"][0]["path"] == "/work/a"
moved = ask("files.move", session=s, **{"from": "mine", "to": "a/b/yours"})
assert moved["path"] == "/work/a/b/yours", moved
assert ask("files.stat", session=s, path="a/b/yours")["size"] == 0
assert ask("files.remove", session=s, path="a")["path"] == "/work/a"
assert names() == []
for op, more, name in (
        ("files.read", {"path": "none"}, "not_found"), ("files.stat", {"path": "none"}, "not_found"),
        ("files.list", {"path": "none"}, "not_found"), ("files.remove", {"path": "x"}, "not_found"),
        ("files.move", {"from": "x", "to": "y"}, "not_found"),
        ("files.write", {"path": "/usr/x", "data": b""}, "rejected"),
        ("files.write", {"path": "/work", "data": b""}, "conflict"),
        ("files.write", {"path": "x", "data": bytes((1 << 20) + 1)}, "too_large"),
        ("files.write", {"path": "x", "data": b"", "mode": 0o4755}, "malformed"),
        ("files.write", {"path": "x", "data": b"x", "offset": 1}, "not_found"),
        ("files.read", {"path": "/dev/zero"}, "rejected"),
        ("files.read", {"path": "/proc/1/environ"}, "rejected"),
        ("files.list", {"depth": 17}, "malformed"), ("files.read", {"path": ""}, "malformed"),
        ("files.read", {"path": "a\0b"}, "malformed"), ("files.remove", {"path": "/"}, "rejected"),
        ("files.read", {"path": "x" * 20000}, "too_large"),
        ("files.events", {"watch": "w-9"}, "not_found"),
        ("files.unwatch", {"watch": "w-9"}, "not_found")):
    assert refused(op, session=s, **more) == name, (op, more)
    assert refused(op, session="nobody", **more) in ("not_found", name), (op, more)
ask("close_session", session=s)
assert refused("files.stat", session=s, path="/") == "not_found"
)py");
}

TEST_CASE("A full disk is told as no_capacity") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
ask("open_session", name="narrow", disk_mib=8)
try:
    for i in range(16):
        ask("files.write", session="narrow", path="big", data=bytes(1 << 20), offset=i << 20)
    raise AssertionError("16 MiB fitted into 8")
except Refused as error:
    assert error.name == "no_capacity" and error.detail.startswith("path: /work/big: "), error
ask("files.remove", session="narrow", path="big")
ask("files.write", session="narrow", path="small", data=b"fits")
ask("close_session", session="narrow")
)py");
}

TEST_CASE("Names with newlines and bytes that are no text go there and back") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
s = ask("open_session", name="odd")["session"]
run("python", "import os\nfor n in (b'new\\nline', b'\\xff\\x80', 'caf\u00e9'.encode()):\n"
    "    open(n, 'wb').write(n)", session=s)
found = {e["path"]: e["name"] for e in ask("files.list", session=s)["entries"]}
assert set(found.values()) == {"new\nline", "\U0010ffff\U0010ff80", "caf\u00e9"}, found
for path, name in found.items():
    data = ask("files.read", session=s, path=path)["data"]
    assert data == b"".join(bytes([ord(c) - 0x10ff00]) if ord(c) >= 0x10ff80 else c.encode()
                            for c in name), (name, data)
ask("files.write", session=s, path="\U0010fffe", data=b"mine")
assert run("python", "print(open(b'\\xfe').read())", session=s)["stdout"] == b"mine\n"
ask("close_session", session=s)
)py");
}

TEST_CASE("Changes of files are taken by who waits for them, and published") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
s = ask("open_session", name="watched")["session"]
events = zmq.Context.instance().socket(zmq.SUB)
events.setsockopt(zmq.RCVTIMEO, 60_000)
events.connect(os.environ["BERTH_EVENTS"])
events.subscribe(f"session.{s}.files")
events.subscribe("job.")
while not events.poll(50):
    run("bash", "true")
watch = ask("files.watch", session="watched", path="/work", recursive=True)["watch"]
assert ask("files.events", session=s, watch=watch)["events"] == []
waits = Client()
waits.send("files.events", session=s, watch=watch, wait_ms=20_000)
run("bash", "mkdir -p a/b; echo x > a/b/c", session=s)
seen = waits.receive()[1]["events"]
assert seen and all(e["watch"] == watch for e in seen), seen
until(lambda: seen.extend(ask("files.events", session=s, watch=watch, wait_ms=1000)["events"])
      or any(e["path"] == "/work/a/b/c" for e in seen), "the file is told")
assert (seen[0]["change"], seen[0]["path"]) == ("created", "/work/a"), seen
told = []
while not any(e["path"] == "/work/a/b/c" for e in told):
    topic, event = events.recv_multipart()
    if topic == f"session.{s}.files".encode():
        told.append(msgpack.unpackb(event))
ask("files.unwatch", session=s, watch=watch)
assert refused("files.events", session=s, watch=watch) == "not_found"
late = ask("files.watch", session=s, path="/work")["watch"]
waits.send("files.events", session=s, watch=late, wait_ms=20_000)
ask("close_session", session=s)
assert isinstance(waits.receive()[1], Refused)
)py");
}
