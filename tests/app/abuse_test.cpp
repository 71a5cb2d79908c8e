// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"

using namespace berth::test;

namespace {

/// Runs an abuser, named `bad` by the script, while neighbours ask; then checks its outcome.
constexpr const char* beside_neighbours = R"py(
result = {}

def abuse():
    result["outcome"] = Client().ask("run", **bad)

thread = threading.Thread(target=abuse)
thread.start()
served = 0
while thread.is_alive() or served < 3:
    answer = run("bash", f"echo {served}", timeout_ms=20_000)
    assert answer["stdout"] == b"%d\n" % served and answer["exit_code"] == 0, answer
    served += 1
thread.join()
assert ask("health")["status"] == "healthy"
outcome = result["outcome"]
outcome_text = {k: v if not isinstance(v, bytes) else v[-300:] for k, v in outcome.items()}
check(outcome, outcome_text)
)py";

void require_held(const std::string& abuser) {
  auto done = shared_server().python(abuser + beside_neighbours);
  INFO(done.out << done.err);
  REQUIRE(done.code == 0);
}

} // namespace

TEST_CASE("A fork bomb is stopped at its limit of processes while neighbours are served") {
  NEEDS_SERVER();
  require_held(R"py(
bad = dict(language="python", processes=32, timeout_ms=1500, code="""
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
""")
def check(outcome, text):
    assert outcome["state"] == "timed_out", text
)py");
}

TEST_CASE("A memory bomb ends out_of_memory while neighbours are served") {
  NEEDS_SERVER();
  if (!shared_server().has_cgroups())
    return skip("no cgroups that can be written: memory is limited by process");
  require_held(R"py(
bad = dict(language="python", memory_mib=64, timeout_ms=30_000, code="""
kept = []
while True:
    kept.append(bytearray(b"x") * (1 << 20))
""")
def check(outcome, text):
    assert outcome["state"] == "out_of_memory", text
)py");
}

TEST_CASE("Memory in files counts, and a disk filler is told that there is no space") {
  NEEDS_SERVER();
  require_held(R"py(
bad = dict(language="python", disk_mib=16, timeout_ms=30_000, code="""
import errno
total = 0
for place in ("/work", "/tmp", "/dev/shm", "/home/agent", "/var/tmp"):
    try:
        with open(place + "/fill", "wb", buffering=0) as out:
            while True:
                total += out.write(bytes(1 << 20))
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
print(total >> 20)
""")
def check(outcome, text):
    assert outcome["state"] == "exited" and outcome["exit_code"] == 0, text
    assert 8 <= int(outcome["stdout"]) <= 16, text
)py");
}

TEST_CASE("Output beyond the limit is counted and not kept, and does not stop the program") {
  NEEDS_SERVER();
  require_held(R"py(
bad = dict(language="python", output_bytes=1 << 20, timeout_ms=30_000, code="""
import sys
for _ in range(100):
    sys.stdout.buffer.write(bytes([65]) * 1_000_000)
print("end", file=sys.stderr)
""")
def check(outcome, text):
    assert outcome["state"] == "exited" and outcome["exit_code"] == 0, text
    assert outcome["stdout"] == b"A" * (1 << 20) and outcome["stdout_truncated"], text
    assert outcome["stdout_bytes"] == 100_000_000 and outcome["stderr"] == b"end\n", text
)py");
}

TEST_CASE("A program that stops its own group, or all it may signal, runs out of time") {
  NEEDS_SERVER();
  require_held(R"py(
bad = dict(language="bash", timeout_ms=700, code="kill -STOP 0; kill -STOP -1")
def check(outcome, text):
    assert outcome["state"] == "timed_out", text
)py");
  require_held(R"py(
bad = dict(language="python", timeout_ms=700,
           code="import os, signal; os.killpg(os.getpgrp(), signal.SIGSTOP)")
def check(outcome, text):
    assert outcome["state"] == "timed_out", text
)py");
}

TEST_CASE("A daemon that was forked twice does not outlive its job") {
  NEEDS_SERVER();
  require_held(R"py(
session = ask("open_session", name="daemons")
bad = dict(language="python", session="daemons", code="""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            with open("/work/beat", "a") as out:
                out.write("x")
            time.sleep(0.01)
    os._exit(0)
while not os.path.exists("/work/beat"):
    time.sleep(0.01)
print("main ends")
""")
def check(outcome, text):
    assert outcome["state"] == "exited" and outcome["stdout"] == b"main ends\n", text
    seen = python("import os, time; a = os.stat('/work/beat').st_size; time.sleep(0.3);"
                  "print(os.stat('/work/beat').st_size - a)", session="daemons")
    assert seen["stdout"] == b"0\n", seen
    assert ask("usage", session="daemons")["processes"] < 8
    ask("close_session", session="daemons")
)py");
}

TEST_CASE("A program that kills all it may signal harms itself only") {
  NEEDS_SERVER();
  require_held(R"py(
bad = dict(language="bash", timeout_ms=5_000, code="kill -9 1; kill -KILL -1; echo still")
def check(outcome, text):
    assert outcome["state"] in ("exited", "signalled", "machine_lost"), text
)py");
}
