// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"

#include <csignal>
#include <filesystem>
#include <unistd.h>

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

constexpr const char* memory_bomb = R"py(
bad = dict(language="python", memory_mib=64, timeout_ms=30_000, code="""
kept = []
while True:
    kept.append(bytearray(b"x") * (1 << 20))
""")
def check(outcome, text):
    assert outcome["state"] == "out_of_memory", text
)py";

constexpr const char* shared_memory_bomb = R"py(
bad = dict(language="python", memory_mib=64, disk_mib=16, timeout_ms=30_000, code="""
import mmap, time
shared = mmap.mmap(-1, 1 << 30)
for page in range(0, 1 << 29, 4096):
    shared[page] = 1
time.sleep(5)
""")
def check(outcome, text):
    assert outcome["state"] == "out_of_memory", text
)py";

constexpr const char* descriptor_bomb = R"py(
bad = dict(language="python", memory_mib=64, disk_mib=16, timeout_ms=30_000, code="""
import os, time
file = os.memfd_create("x")
for _ in range(512):
    os.write(file, bytes([1]) * (1 << 20))
time.sleep(5)
""")
def check(outcome, text):
    assert outcome["state"] == "out_of_memory", text
)py";

constexpr const char* fork_counter = R"py(
bad = dict(language="python", processes=8, timeout_ms=30_000, code="""
import os, signal
count = 0
try:
    while count < 1000:
        if os.fork() == 0:
            signal.pause()
        count += 1
except OSError:
    pass
print(count)
""")
def check(outcome, text):
    assert outcome["state"] == "exited" and 4 <= int(outcome["stdout"]) <= 24, text
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
  require_held(memory_bomb);
}

TEST_CASE("Memory that is shared or that only a descriptor holds counts, too") {
  NEEDS_SERVER();
  require_held(shared_memory_bomb);
  require_held(descriptor_bomb);
}

TEST_CASE("An ordinary user's server, without cgroups, holds memory and processes as well") {
  NEEDS_SERVER();
  if (::geteuid() != 0)
    return skip("not root: all tests here are an ordinary user's");
  constexpr uid_t nobody = 65534;
  server_home home{nobody};
  server serving{home, {{"vm_execution", {{"code_validation", false}}}}};
  CHECK(!serving.has_cgroups());
  for (const char* bomb : {memory_bomb, shared_memory_bomb, descriptor_bomb, fork_counter}) {
    auto done = serving.python(std::string{bomb} + beside_neighbours);
    INFO(done.out << done.err << serving.program().err());
    CHECK(done.code == 0);
  }
  serving.program().signal(SIGTERM);
  CHECK(serving.program().wait() == 0);
  CHECK(std::filesystem::is_empty(home.runtime_dir()));
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
