// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

using namespace berth::test;
namespace fs = std::filesystem;

namespace {

const nlohmann::json no_rules = {
    {"vm_execution", {{"history", {{"snapshot_on_failure", false}}}, {"code_validation", false}}}};

std::vector<fs::path> files_of_snapshots(const server_home& home) {
  std::vector<fs::path> all;
  for (const auto& each : fs::directory_iterator{home.path() + "/data/snapshots"})
    all.push_back(each.path());
  return all;
}

} // namespace

TEST_CASE("Random jobs, snapshots, rollbacks, forks and pauses agree with a model") {
  NEEDS_SERVER();
  unsigned seed = GENERATE(1U, 2U, 3U);
  server_home home;
  server serving{home, no_rules};
  REQUIRE_SCRIPT(serving, "seed = " + std::to_string(seed) + R"py(
from state_model import Model
steps = []
model = Model(seed, lambda *what: steps.append(what))
for i in range(40):
    try:
        model.step()
        model.check()
    except BaseException:
        print("after", steps[-8:])
        raise
model.check_list()
)py");
}

TEST_CASE("Clients that do everything at once to the same sessions are all answered") {
  NEEDS_SERVER();
  server_home home;
  server serving{home,
                 {{"pool", {{"slots_max", 12}, {"warm_max", 4}, {"session_pause_ms", 1'500}}}}};
  REQUIRE_SCRIPT(serving, R"py(
from state_crowd import Crowd
crowd = Crowd(seed=1, seconds=6)
assert not crowd.unanswered, crowd.unanswered
assert crowd.answered > 50, crowd.answered
)py");
}

TEST_CASE("A rollback gives back files and variables, also to the first of a hundred snapshots") {
  NEEDS_SERVER();
  server_home home;
  server serving{home, no_rules};
  REQUIRE_SCRIPT(serving, R"py(
from state_model import check_files, check_variables
s = ask("open_session")["session"]
first = None
for i in range(100):
    assert ask("run", session=s, language="bash", code=f"mkdir -p d; echo -n {i} > d/f0")["exit_code"] == 0
    assert cell(s, f"v0 = {i}")["exit_code"] == 0
    info = ask("snapshot", session=s, name=f"n{i}", wait_durable=False)
    first = first or info
    assert info["content"] == "files+memory" and info["contexts"] == ["python"], info
back = ask("rollback", session=s, snapshot=first["snapshot"])
assert back["machine"] == "vm-" + s[2:], back
check_files(s, {"f0": "0"})
if back["content"] == "files+memory":
    check_variables(s, "python", {"v0": 0})
back = ask("rollback", session=s, snapshot="n99")
check_files(s, {"f0": "99"})
listed = ask("snapshots", session=s)["snapshots"]
assert len(listed) == 100, len(listed)
until(lambda: all(x["durable"] for x in ask("snapshots", session=s)["snapshots"]), "durable")
)py");
}

TEST_CASE("Snapshots outlive kill -9 of the server, and sessions wake with what was saved") {
  NEEDS_SERVER();
  server_home home;
  auto first = std::make_unique<server>(home, no_rules);
  auto made = first->python(R"py(
s = ask("open_session", name="kept", agent_id="ann")["session"]
ask("run", session=s, language="bash", code="mkdir -p d; echo -n one > d/f0")
cell(s, "v0 = 1")
point = ask("snapshot", session=s, name="point")
assert point["durable"] and point["content"] == "files+memory", point
ask("run", session=s, language="bash", code="echo -n two > d/f0")
job = ask("history", session=s)["entries"][0]["result"]["job"]
time.sleep(4) # it goes to disk by itself
never = ask("open_session", name="never")["session"]
ask("run", session=never, language="bash", code="mkdir -p d; echo -n lost > d/f0")
print(s, point["snapshot"], job, never)
)py");
  INFO(made.out << made.err);
  REQUIRE(made.code == 0);
  first->program().signal(SIGKILL);
  first->program().wait();
  first.reset();
  server second{home, no_rules};
  REQUIRE_SCRIPT(second, "s, point, job, never = '" + made.out.substr(0, made.out.size() - 1)
                             + R"py('.split()
from state_model import check_files
sessions = {x["session"]: x for x in ask("sessions")["sessions"]}
assert sessions[s]["state"] == "paused" and sessions[s]["name"] == "kept", sessions
assert job in sessions[s]["detail"] and "live interpreters are gone" in sessions[s]["detail"], sessions
assert sessions[never]["state"] in ("lost", "paused"), sessions
assert sessions[never]["detail"], sessions
listed = ask("snapshots", session=s)["snapshots"]
assert [x["snapshot"] for x in listed] == [point], listed
assert listed[0]["content"] == "files" and not listed[0].get("contexts"), listed
answer = ask("run", agent_id="ann", language="bash", code="cat d/f0")
assert answer["session"] == s and answer["stdout"] == b"two", answer
back = ask("rollback", session="kept", snapshot="point")
assert back["content"] == "files", back
check_files(s, {"f0": "one"})
answer = cell(s, "print('v0' in globals())")
assert answer["stdout"] == b"False\n", answer
)py");
}

TEST_CASE(
    "kill -9 in the middle of anything leaves snapshots whole and sessions at a saved state") {
  NEEDS_SERVER();
  unsigned seed = GENERATE(11U, 12U, 13U);
  server_home home;
  auto first = std::make_unique<server>(home, no_rules);
  // Each line is a state that was acknowledged as durable before it was printed.
  auto load = first->python_process("seed = " + std::to_string(seed) + R"py(
from state_model import Model
import json
model = Model(seed)
while True:
    try:
        model.step()
    except Refused:
        pass
    durable = {x["snapshot"] for x in ask("snapshots")["snapshots"] if x["durable"]}
    print(json.dumps({"sessions": sorted(model.states),
                      "snapshots": {k: [v[0], v[1].files] for k, v in model.snapshots.items()
                                    if k in durable}}), flush=True)
)py");
  auto lines = [&] {
    auto text = load->out();
    return std::count(text.begin(), text.end(), '\n');
  };
  REQUIRE(eventually([&] { return lines() >= 12 + static_cast<long>(seed % 3) * 5; }));
  std::this_thread::sleep_for(std::chrono::milliseconds{7 * (seed % 5)});
  first->program().signal(SIGKILL);
  first->program().wait();
  load->signal(SIGKILL);
  load->wait();
  first.reset();
  std::string text = load->out();
  text.resize(text.rfind('\n'));
  write_file(home.path() + "/last.json", text.substr(text.rfind('\n') + 1));
  server second{home, no_rules};
  REQUIRE_SCRIPT(second, "path = '" + home.path() + "/last.json'\n" + R"py(
from state_model import read_files
import json
last = json.load(open(path))
sessions = {x["session"]: x for x in ask("sessions")["sessions"]}
listed = {x["snapshot"]: x for x in ask("snapshots")["snapshots"]}
for snapshot, (session, files) in last["snapshots"].items():
    if snapshot not in listed:
        continue # deleted in the step that the kill cut short, or the one after the line
    assert not listed[snapshot].get("damage"), listed[snapshot]
    back = ask("rollback", session=session, snapshot=snapshot)
    assert back["content"] == "files", back
    got = read_files(session)
    assert got == files, (snapshot, got, files)
for session in last["sessions"]:
    assert session in sessions, session
    assert ask("run", session=session, language="bash", code="true")["exit_code"] == 0
missing = set(last["snapshots"]) - set(listed)
assert len(missing) <= 2, missing
)py");
}

TEST_CASE("Truncated and flipped snapshots are refused with a reason; the others go on") {
  NEEDS_SERVER();
  server_home home;
  auto first = std::make_unique<server>(home, no_rules);
  REQUIRE_SCRIPT(*first, R"py(
for name in ("good", "short", "flipped", "manifest"):
    s = ask("open_session", name=name)["session"]
    ask("run", session=s, language="bash", code=f"mkdir -p d; echo -n {name} > d/f0")
    print(ask("snapshot", session=s, name="p-" + name)["snapshot"])
    ask("pause_session", session=s)
)py");
  first->program().signal(SIGTERM);
  REQUIRE(first->program().wait() == 0);
  first.reset();
  for (const auto& path : files_of_snapshots(home)) {
    std::string name = path.filename();
    std::string bytes = content_of(path);
    bool is_archive = path.extension() == ".archive";
    if (name.starts_with("p-short") && is_archive)
      fs::resize_file(path, bytes.size() / 2);
    if (name.starts_with(is_archive ? "p-flipped" : "p-manifest")) {
      bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
      write_file(path, bytes);
    }
  }
  server second{home, no_rules};
  REQUIRE_SCRIPT(second, R"py(
from state_model import check_files
def of(name):
    return next(x for x in ask("snapshots")["snapshots"] if x["name"] == "p-" + name)
assert "bytes instead of" in of("short")["damage"], of("short")
for name in ("short", "flipped"):
    try:
        ask("rollback", session=name, snapshot="p-" + name)
        raise AssertionError("a damaged snapshot was restored")
    except Refused as why:
        assert why.name == "store_failed", why
    assert of(name)["damage"], of(name)
check_files("good", {"f0": "good"})
assert ask("rollback", session="good", snapshot="p-good")["content"] == "files"
# A manifest that cannot be read does not even tell its name: its snapshot has none.
broken = [x for x in ask("snapshots")["snapshots"] if x["snapshot"].startswith("p-manifest")]
assert len(broken) == 1 and broken[0]["damage"], broken
assert refused("rollback", session="manifest", snapshot=broken[0]["snapshot"]) == "not_found"
# What they would have woken up with is damaged: they say so, and go on.
for name in ("short", "flipped", "manifest"):
    answer = ask("run", session=name, language="bash", code="cat d/f0")
    assert answer["state"] == "exited" and answer["stdout"] == b"", answer
    info = ask("sessions", session=name)["sessions"][0]
    assert "could not be restored" in info["detail"], info
)py");
}

TEST_CASE("The rules of vm_execution.history do what they say") {
  NEEDS_SERVER();
  server_home home;
  server serving{home,
                 {{"vm_execution",
                   {{"history",
                     {{"snapshot_on_execution", true},
                      {"snapshot_on_failure", true},
                      {"auto_rollback_on_failure", true}}}}}}};
  REQUIRE_SCRIPT(serving, R"py(
from state_model import check_files
s = ask("open_session")["session"]
good = ask("run", session=s, language="bash", code="mkdir -p d; echo -n good > d/f0")
assert good["snapshot_before"] and not good.get("snapshot_after"), good
bad = ask("run", session=s, language="bash", code="echo -n bad > d/f0; touch d/f1; exit 3")
assert bad["exit_code"] == 3, bad
assert bad["snapshot_before"] and bad["snapshot_after"], bad
assert bad["rolled_back_to"] == bad["snapshot_before"], bad
check_files(s, {"f0": "good"})
# The broken state is still there to be looked at.
back = ask("rollback", session=s, snapshot=bad["snapshot_after"])
assert back["snapshot"] == bad["snapshot_after"]
answer = ask("run", session=s, language="bash", code="cat d/f0; ls d")
assert answer["stdout"] == b"badf0\nf1\n", answer
back = ask("rollback", session=s, last_success=True)
kinds = [e.get("kind", "job") for e in ask("history", session=s)["entries"]]
assert kinds.count("rollback") == 3, kinds
number = next(e["number"] for e in ask("history", session=s)["entries"]
              if e["result"]["job"] == bad["job"])
ask("rollback", session=s, before_entry=number)
check_files(s, {"f0": "good"})
ask("rollback", session=s, after_entry=number)
answer = ask("run", session=s, language="bash", code="cat d/f0")
assert answer["stdout"] == b"bad", answer
)py");
}

TEST_CASE("Forks have the parent's files, and names and random numbers of their own") {
  NEEDS_SERVER();
  server_home home;
  server serving{home, no_rules};
  REQUIRE_SCRIPT(serving, R"py(
from state_model import check_files
s = ask("open_session")["session"]
ask("run", session=s, language="bash", code="mkdir -p d; echo -n mine > d/f0")
answer = ask("fork", session=s, count=8)
assert len({x["session"] for x in answer["sessions"]}) == 8, answer
seen = set()
for child in answer["sessions"]:
    check_files(child["session"], {"f0": "mine"})
    out = ask("run", session=child["session"], language="python",
              code="import random, os, socket\n"
                   "print(socket.gethostname(), random.random(), os.urandom(8).hex())")["stdout"]
    host, number, noise = out.decode().split()
    assert host == child["machine"], (host, child)
    seen |= {number, noise}
    ask("run", session=child["session"], language="bash", code="echo -n theirs > d/f0")
assert len(seen) == 16, seen
check_files(s, {"f0": "mine"})
child = answer["sessions"][0]["session"]
point = ask("snapshot", session=child)
ask("run", session=child, language="bash", code="rm -rf d")
ask("rollback", session=child, snapshot=point["snapshot"])
check_files(child, {"f0": "theirs"})
ask("close_session", session=s) # the parent's end is not theirs
check_files(child, {"f0": "theirs"})
assert refused("fork", session=child, count=256) == "no_capacity"
)py");
}

TEST_CASE("A paused session costs no machine and survives restarts") {
  NEEDS_SERVER();
  server_home home;
  auto first = std::make_unique<server>(home, no_rules);
  REQUIRE_SCRIPT(*first, R"py(
s = ask("open_session", name="sleeper")["session"]
ask("run", session=s, language="bash", code="mkdir -p d; echo -n dream > d/f0")
assert ask("pause_session", session=s)["state"] == "paused"
until(lambda: all(x.get("session") != s for x in ask("pool")["slots"]), "the machine goes")
awake = ask("open_session", name="awake")["session"]
ask("run", session=awake, language="bash", code="mkdir -p d; echo -n work > d/f0")
)py");
  first->program().signal(SIGTERM); // an orderly end saves who is awake
  REQUIRE(first->program().wait() == 0);
  first.reset();
  server second{home, no_rules};
  REQUIRE_SCRIPT(second, R"py(
from state_model import check_files
states = {x["name"]: x["state"] for x in ask("sessions")["sessions"]}
assert states == {"sleeper": "paused", "awake": "paused"}, states
assert ask("resume_session", session="sleeper")["state"] == "ready"
check_files("sleeper", {"f0": "dream"})
check_files("awake", {"f0": "work"}) # a job wakes it
)py");
}
