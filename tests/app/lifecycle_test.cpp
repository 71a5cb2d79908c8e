// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"

#include <algorithm>
#include <csignal>
#include <filesystem>

using namespace berth::test;

namespace {

/// Everything on the host that belongs to a running server.
struct belongings {
  explicit belongings(server& of)
    : processes(tree_of(of.program().pid()))
    , instances(of.instances()) {}

  std::size_t processes_left() const {
    return static_cast<std::size_t>(std::count_if(processes.begin(), processes.end(),
                                                  [](const auto& one) { return one.alive(); }));
  }
  std::size_t groups_left() const {
    std::size_t count = 0;
    for (const auto& one : instances)
      count += groups_of(one).size();
    return count;
  }
  std::size_t directories_left(const server_home& home) const {
    return static_cast<std::size_t>(
        std::count_if(instances.begin(), instances.end(), [&](const auto& one) {
          return std::filesystem::exists(home.runtime_dir() + "/machines/" + one);
        }));
  }

  std::vector<host_process> processes;
  std::vector<std::string> instances;
};

/// Fails where something of a dead server is left soon after.
void require_gone(const belongings& was, const server_home& home) {
  constexpr std::chrono::seconds soon{10};
  eventually([&] { return was.processes_left() == 0 && was.groups_left() == 0; }, soon);
  CHECK(was.processes_left() == 0);
  CHECK(was.groups_left() == 0);
  eventually([&] { return was.directories_left(home) == 0; }, soon);
  CHECK(was.directories_left(home) == 0);
}

/// Submits without end, and prints the id of every job that was acknowledged.
constexpr const char* load = R"py(
import itertools
for i in itertools.count():
    code = "sleep 600" if i % 5 == 0 else f"echo {i}"
    try:
        job = ask("submit", language="bash", code=code)["job"]
        print(job, flush=True)
    except Refused:
        time.sleep(0.01)
)py";

std::size_t lines_of(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

} // namespace

TEST_CASE("After kill -9 under load every acknowledged job is in history, and nothing is left") {
  NEEDS_SERVER();
  bool spawner_too = GENERATE(false, true);
  CAPTURE(spawner_too);
  server_home home;
  auto first = std::make_unique<server>(home);
  auto client = first->python_process(load);
  REQUIRE(eventually([&] { return lines_of(client->out()) >= 60; }));
  belongings was{*first};
  INFO("processes " << was.processes.size() << ", instances " << was.instances.size());
  CHECK(was.processes.size() > 3);
  first->program().signal(SIGSTOP);
  if (spawner_too)
    for (const auto& one : was.processes)
      if (content_of("/proc/" + std::to_string(one.pid) + "/cmdline").find("serve")
          != std::string::npos)
        ::kill(one.pid, SIGKILL);
  first->program().signal(SIGKILL);
  REQUIRE(first->program().wait() == 128 + SIGKILL);
  client->signal(SIGKILL);
  client->wait();
  first.reset();

  auto second = std::make_unique<server>(home);
  if (spawner_too && was.groups_left() > 0) {
    // With nobody left to clear up, a busy host may outlast one start's patience; the next tries
    // on.
    WARN("the first start after the crash left " << was.groups_left() << " cgroups");
    second->program().signal(SIGTERM);
    REQUIRE(second->program().wait() == 0);
    second = std::make_unique<server>(home);
  }
  require_gone(was, home);
  std::string acknowledged = client->out();
  write_file(home.path() + "/acknowledged", acknowledged.substr(0, acknowledged.rfind('\n') + 1));
  auto done = second->python("import os\npath = '" + home.path() + "/acknowledged'\n" + R"py(
wanted = set(open(path).read().split())
assert len(wanted) >= 60
found, before = {}, 0
while True:
    page = ask("history", limit=1000, before=before)
    found.update({e["result"]["job"]: e["result"]["state"] for e in page["entries"]})
    before = page.get("next_before")
    if not before:
        break
lost = wanted - set(found)
assert not lost, (len(lost), "of", len(wanted), "acknowledged jobs are not in history")
assert set(found.values()) <= {"exited", "interrupted"}, set(found.values())
assert "interrupted" in found.values(), found
assert python("print(1)")["stdout"] == b"1\n"
)py");
  INFO(done.out << done.err);
  CHECK(done.code == 0);
  second->program().signal(SIGTERM);
  CHECK(second->program().wait() == 0);
}

TEST_CASE("SIGTERM lets a running job end, refuses new ones, and leaves nothing") {
  NEEDS_SERVER();
  server_home home;
  server serving{home, {{"drain_grace_ms", 30'000}}};
  auto waiting = serving.python_process(R"py(
client = Client()
client.ask("open_session", name="kept")
id = client.send("run", language="python", code="print('up', flush=True); input(); print('end')",
                 stdin_open=True, session="kept")
until(lambda: ask("jobs")["jobs"] and ask("jobs")["jobs"][0]["state"] == "running", "running")
job = ask("jobs")["jobs"][0]["job"]
output_until(job, b"up")
print("running", flush=True)
until(lambda: ask("health")["status"] == "draining", "draining")
for op, body in (("run", {"language": "bash", "code": "true"}), ("open_session", {}),
                 ("submit", {"language": "bash", "code": "true"})):
    assert refused(op, **body) == "shutting_down", op
ask("write_stdin", job=job, data=b"\n", eof=True)
got, answer = client.receive()
assert got == id and answer["stdout"] == b"up\nend\n" and answer["exit_code"] == 0, answer
)py");
  bool running = eventually([&] { return waiting->out().find("running") != std::string::npos; });
  INFO(waiting->out() << waiting->err());
  REQUIRE(running);
  belongings was{serving};
  CHECK(was.instances.size() == 1);
  serving.program().signal(SIGTERM);
  CHECK(waiting->wait() == 0);
  INFO("client: " << waiting->err());
  CHECK(serving.program().wait() == 0);
  INFO("server: " << serving.program().err());
  require_gone(was, home);
}

TEST_CASE("A job that outlives the grace of SIGTERM is interrupted, and history says so") {
  NEEDS_SERVER();
  server_home home;
  auto first = std::make_unique<server>(home, nlohmann::json{{"drain_grace_ms", 200}});
  auto submitted = first->python(R"py(
job = ask("submit", language="bash", code="trap '' TERM INT; echo up; while :; do :; done")["job"]
output_until(job, b"up")
print(job)
)py");
  INFO(submitted.err);
  REQUIRE(submitted.code == 0);
  belongings was{*first};
  first->program().signal(SIGTERM);
  CHECK(first->program().wait() == 0);
  require_gone(was, home);
  first.reset();
  server second{home};
  REQUIRE_SCRIPT(second, R"py(
entries = ask("history")["entries"]
assert len(entries) == 1 and entries[0]["result"]["state"] == "interrupted", entries
assert entries[0]["result"]["stdout"] == b"up\n", entries
)py");
}
