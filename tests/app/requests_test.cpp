// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"

using namespace berth::test;

TEST_CASE("A REQ socket runs a program and gets its outcome") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
for endpoint in (ROUTER, IPC):
    answer = Client(zmq.REQ, endpoint).ask(
        "run", language="python", code="import sys; print(6 * 7); sys.exit(3)")
    assert answer["state"] == "exited" and answer["exit_code"] == 3, answer
    assert answer["stdout"] == b"42\n" and answer["stderr"] == b"", answer
    assert answer["wall_us"] > 0 and answer["machine"].startswith("vm-"), answer
)py");
}

TEST_CASE("A DEALER with 64 programs in flight gets every answer once") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
client = Client()
sent = {client.send("run", language="bash", code=f"echo {i}"): i for i in range(64)}
while sent:
    id, answer = client.receive()
    assert answer["stdout"] == b"%d\n" % sent.pop(id), answer
)py");
}

TEST_CASE("Output of a submitted program is read while it runs, from any offset") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
job = ask("submit", language="python", stdin_open=True,
          code="print('abc', flush=True); input(); print('def')")["job"]
assert output_until(job, b"abc\n") == b"abc\n"
assert [j["state"] for j in ask("jobs")["jobs"] if j["job"] == job] == ["running"]
part = ask("read", job=job, stdout_offset=2, bytes_max=1)
assert part["stdout"] == b"c" and part["stdout_offset"] == 2, part
ask("write_stdin", job=job, data=b"\n", eof=True)
ended, out, err = end_of(job)
assert (ended["state"], ended["exit_code"], out, err) == ("exited", 0, b"abc\ndef\n", b"")
assert ask("read", job=job, stdout_offset=5, wait_ms=1000)["stdout"] == b"ef\n"
assert refused("read", job=job, stdout_offset=9) == "malformed"
)py");
}

TEST_CASE("Events tell the output and the end of a job") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
events = zmq.Context.instance().socket(zmq.SUB)
events.setsockopt(zmq.RCVTIMEO, 60_000)
events.connect(os.environ["BERTH_EVENTS"])
events.subscribe("job.")
job = ask("submit", language="bash", stdin_open=True, code="read; echo one; echo two >&2")["job"]
# A subscription takes a moment to arrive: other jobs run until one of their events does.
while not events.poll(50):
    run("bash", "true")
ask("write_stdin", job=job, data=b"\n", eof=True)
heard = {"stdout": b"", "stderr": b""}
state = None
while state not in TERMINAL:
    topic, event = events.recv_multipart()
    event, kind = msgpack.unpackb(event), topic.decode().rsplit(".", 1)[1]
    if not topic.startswith(f"job.{job}.".encode()):
        continue
    if kind == "state":
        state = event["state"]
    else:
        assert event["offset"] == len(heard[kind]), event
        heard[kind] += event["data"]
assert state == "exited" and heard == {"stdout": b"one\n", "stderr": b"two\n"}, (state, heard)
)py");
}

TEST_CASE("cancel ends a job with all it started, and says so to whoever waits") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
job = ask("submit", language="bash", code="sleep 1000 & echo up; sleep 1000")["job"]
output_until(job, b"up")
assert ask("cancel", job=job)["state"] == "cancelled"
assert end_of(job)[0]["state"] == "cancelled"
assert ask("cancel", job=job)["state"] == "cancelled"
done = ask("submit", language="bash", code="exit 7")["job"]
end_of(done)
assert ask("cancel", job=done)["state"] == "exited"
assert refused("cancel", job="no-such-job") == "not_found"
)py");
}

TEST_CASE("write_stdin reaches the program byte by byte, and its end closes the input") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
job = ask("submit", language="python", stdin=b"first ", stdin_open=True,
          code="import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])")["job"]
assert ask("write_stdin", job=job, data=bytes(range(256)))["bytes"] == 256
ask("write_stdin", job=job, eof=True)
assert end_of(job)[1] == (b"first " + bytes(range(256)))[::-1]
)py");
}

TEST_CASE("An agent's jobs share one machine; another agent's and one-shot jobs do not see it") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
first = python("open('/work/note', 'w').write('mine')", agent_id="sticky")
again = python("print(open('/work/note').read())", agent_id="sticky")
assert again["stdout"] == b"mine\n" and again["machine"] == first["machine"], again
look = "import os; print(os.path.exists('/work/note'))"
assert python(look, agent_id="other")["stdout"] == b"False\n"
assert python(look)["stdout"] == b"False\n"
assert python(look, agent_id="sticky", one_shot=True)["stdout"] == b"False\n"
session = ask("sessions", agent_id="sticky")["sessions"]
assert len(session) == 1 and session[0]["machine"] == first["machine"], session
for one in session + ask("sessions", agent_id="other")["sessions"]:
    ask("close_session", session=one["session"])
fresh = python(look, agent_id="sticky")
assert fresh["stdout"] == b"False\n" and fresh["machine"] != first["machine"], fresh
ask("close_session", session=fresh["session"])
)py");
}

TEST_CASE("One-shot machines share nothing: files, processes, shared memory, names") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
leave = """
for place in /work /tmp /var/tmp /home/agent /dev/shm /run/lock; do echo left > $place/mark; done
(trap '' HUP TERM; exec -a straggler sleep 500) & echo done
"""
find = """
for place in /work /tmp /var/tmp /home/agent /dev/shm /run/lock; do ls $place/mark; done
grep -l straggler /proc/[0-9]*/cmdline
true
"""
machines = set()
for _ in range(6):
    answer = run("bash", leave)
    assert answer["stdout"] == b"done\n", answer
    machines.add(answer["machine"])
    answer = run("bash", find)
    assert answer["stdout"] == b"", answer
    machines.add(answer["machine"])
assert len(machines) == 12, machines
)py");
}

TEST_CASE("Files are placed in a session and read back whole") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
session = ask("open_session", name="files", agent_id="filer")
data = os.urandom(1_000_000)
ask("put_files", session="files", files=[{"path": "deep/er/data", "data": data, "mode": 0o640}])
told = python("import os, hashlib; p = '/work/deep/er/data';"
              "print(hashlib.sha256(open(p, 'rb').read()).hexdigest(), oct(os.stat(p).st_mode))",
              session="files")["stdout"].split()
import hashlib
assert told == [hashlib.sha256(data).hexdigest().encode(), b"0o100640"], told
got = b""
while True:
    part = ask("files.read", session="files", path="deep/er/data", offset=len(got))
    got += part["data"]
    if part["eof"]:
        break
assert got == data and part["size"] == len(data)
assert refused("files.read", session="files", path="/work/none") == "not_found"
assert refused("open_session", name="files") == "already_exists"
used = ask("usage", session="files")
assert used["disk_bytes"] >= len(data) and used["processes"] >= 1, used
ask("close_session", session="files")
assert refused("usage", session="files") == "not_found"
)py");
}

TEST_CASE("history finds jobs by agent and state, page by page, and keeps code and output") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
for i in range(5):
    run("bash", f"echo {i}; exit {i % 2}", agent_id="historian", metadata={"i": str(i)})
run("bash", "sleep 100", agent_id="historian", timeout_ms=100)
ask("close_session", session=ask("sessions", agent_id="historian")["sessions"][0]["session"])
page = ask("history", agent_id="historian", limit=4)
assert page["total"] == 6 and len(page["entries"]) == 4, page
rest = ask("history", agent_id="historian", limit=4, before=page["next_before"])["entries"]
entries = page["entries"] + rest
assert [e["metadata"].get("i") for e in entries] == [None, "4", "3", "2", "1", "0"], entries
assert entries[1]["result"]["stdout"] == b"4\n" and entries[1]["code"] == "echo 4; exit 0"
late = ask("history", agent_id="historian", state="timed_out")["entries"]
assert len(late) == 1 and late[0]["limits"]["timeout_ms"] == 100, late
assert ask("history", agent_id="historian", failures_only=True)["total"] == 3
assert ask("history", agent_id="nobody")["total"] == 0
)py");
}

TEST_CASE("describe names every operation of the reference, and every one answers") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
wanted = {"run", "submit", "read", "cancel", "write_stdin", "validate", "jobs", "open_session",
          "close_session", "sessions", "usage", "put_files", "files.read", "files.write",
          "files.list", "files.stat", "files.make_dir", "files.move", "files.remove", "files.watch",
          "files.events", "files.unwatch", "open_context", "contexts", "restart_context",
          "close_context", "interrupt", "snapshot", "snapshots", "delete_snapshot", "rollback",
          "fork", "pause_session", "resume_session", "history", "chat", "cancel_chat",
          "conversations", "close_conversation", "workflow", "submit_workflow", "workflow_status",
          "workflows", "cancel_workflow", "pause_workflow", "resume_workflow", "progress", "roles",
          "config", "set_config", "select_role", "models", "pool", "health", "describe"}
told = ask("describe")
assert {o["op"] for o in told["operations"]} == wanted, told["operations"]
types = {t["name"] for t in told["types"]}
assert all(o["request"] in types and o["reply"] in types for o in told["operations"])
for op in wanted - {"jobs", "sessions", "snapshots", "history", "conversations", "workflows",
                    "roles", "config", "models", "pool", "health", "describe", "open_session"}:
    assert refused(op) == "malformed", op
)py");
}

TEST_CASE("A program that runs out of time still has what it printed") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
for language, code in (("python", "print('partial'); import time; time.sleep(100)"),
                       ("bash", "trap '' TERM INT; echo partial; while :; do :; done")):
    answer = run(language, code, timeout_ms=700)
    assert answer["state"] == "timed_out" and answer["stdout"] == b"partial\n", answer
    assert answer["exit_code"] is None, answer
)py");
}
