// SPDX-License-Identifier: Apache-2.0
#include "machines/image/image.hpp"
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"
#include "tests/support/sockets.hpp"

#include <csignal>
#include <filesystem>

using namespace berth::test;
namespace fs = std::filesystem;

namespace {

const std::string images = std::string{BERTH_BUILD_DIR} + "/vm";

/// Lends a server's home the image that image_build_test made. False: it made none.
bool lend_image(const server_home& home) {
  if (!berth::machines::find_image(images, "minimal"))
    return false;
  fs::create_directories(home.path() + "/data");
  fs::create_directory_symlink(images + "/images", home.path() + "/data/images");
  return true;
}

const nlohmann::json small_image = {{"kind", "namespace"}, {"qemu", {{"image", "minimal"}}}};

/// A template is booted for the first machine, emulated, maybe under a sanitizer.
constexpr std::string_view patience = R"py(
from client import *
client = Client()
client.socket.setsockopt(zmq.RCVTIMEO, 240_000)
host = os.uname().release
)py";

std::string script(std::string_view rest) {
  return std::string{patience} + std::string{rest};
}

} // namespace

#define NEEDS_IMAGE(home)                                                                          \
  do {                                                                                             \
    if (!lend_image(home))                                                                         \
      return skip("no image of virtual machines was made here");                                   \
  } while (false)

TEST_CASE("A machine type with a network reaches its places, and others reach none") {
  NEEDS_SERVER();
  tcp_server listed{tcp_server::echo_head};
  const std::string place = "127.0.0.1:" + std::to_string(listed.port);
  server_home home;
  server serving{home,
                 {{"kind", "namespace"},
                  {"vm_types",
                   {{"net", {{"kind", "namespace"}, {"network", {place}}}},
                    {"net-fc", {{"kind", "firecracker"}, {"network", {place}}}}}}}};
  REQUIRE_SCRIPT(serving, script("place = '" + place + "'\n" + R"py(
code = """
import os, urllib.request
for name in ("no_proxy", "NO_PROXY"):
    os.environ.pop(name, None)
try:
    print(urllib.request.urlopen("http://%s/", timeout=30).status)
except OSError as e:
    print(e)
"""
def said(code, **more):
    got = client.ask("run", language="python", code=code, **more)
    assert got["state"] == "exited", got
    return got["stdout"].decode()

assert said(code % place, vm_type="net") == "200\n"
assert "403" in said(code % "127.0.0.2:80", vm_type="net")
assert "refused" in said(code % place), said(code % place)
# A session keeps its network, through sleep and in forks; its cells have it too.
session = client.ask("open_session", vm_type="net")["session"]
assert said(code % place, session=session) == "200\n"
assert said(code % place, session=session, kernel=True) == "200\n"
client.ask("pause_session", session=session)
assert said(code % place, session=session) == "200\n"
fork = client.ask("fork", session=session, count=1)["sessions"][0]
assert said(code % place, session=fork["session"]) == "200\n"
plain = client.ask("open_session")["session"]
wish = dict(language="bash", code="true")
assert refused("run", session=plain, vm_type="net", **wish) == "isolation_unavailable"
assert refused("run", vm_type="net-fc", **wish) == "isolation_unavailable"
facts = "\n".join(client.ask("health")["isolation"])
assert "which leads to " + place in facts and "cannot have a network" in facts, facts
)py"));
}

TEST_CASE("One server runs virtual machines beside others, and each request gets its kind") {
  NEEDS_SERVER();
  server_home home;
  NEEDS_IMAGE(home);
  server serving{home, small_image};
  REQUIRE_SCRIPT(serving, script(R"py(
assert client.ask("health")["machine_kind"] == "namespace, qemu", client.ask("health")
kernel = dict(language="bash", code="uname -r")
plain = client.ask("run", **kernel)
assert (plain["machine_kind"], plain["stdout"].decode().strip()) == ("namespace", host), plain
for wish in (dict(isolation="vm"), dict(kind="qemu"), dict(vm_type="berth-vm")):
    got = client.ask("run", **kernel, **wish)
    assert got["machine_kind"] == "qemu", (wish, got)
    assert got["stdout"].decode().strip() not in ("", host), (wish, got)

made = client.ask("open_session", name="virtual", vm_type="berth-vm")
assert made["machine_kind"] == "qemu", made
def say(session, code):
    return client.ask("run", session=session, language="bash", code=code)["stdout"].decode().strip()
say("virtual", "echo kept > /tmp/file")
child = client.ask("fork", session="virtual", count=1)["sessions"][0]
assert child["machine_kind"] == "qemu", child
assert say(child["session"], "cat /tmp/file; uname -r").split()[0] == "kept"
assert say(child["session"], "uname -r") != host

client.ask("open_session", name="plain")
try:
    client.ask("run", session="plain", isolation="vm", **kernel)
    raise AssertionError("a job was served by less than it asked for")
except Refused as why:
    assert why.name == "isolation_unavailable", why
kinds = {s["name"]: s["machine_kind"] for s in client.ask("sessions")["sessions"]}
assert (kinds["virtual"], kinds["plain"]) == ("qemu", "namespace"), kinds
)py"));
  auto [status, answer] = serving.post("/api/llm/execute", {{"code", "uname -r"},
                                                            {"language", "bash"},
                                                            {"agent_id", "legacy"},
                                                            {"vm_type", "berth-vm"}});
  CHECK(status == 200);
  CHECK(answer["exit_code"] == 0);
  CHECK(answer["vm_id"].get<std::string>().starts_with("vm-"));
}

TEST_CASE("A machine type has processors and memory of its own") {
  NEEDS_SERVER();
  server_home home;
  NEEDS_IMAGE(home);
  auto settings = small_image;
  settings["vm_types"]["two"] = {{"kind", "qemu"}, {"vcpus", 2}, {"memory_mib", 300}};
  settings["vm_types"]["none"] = {{"kind", "qemu"}, {"image", "no-such-image"}};
  server serving{home, settings};
  REQUIRE_SCRIPT(serving, script(R"py(
def look(**wish):
    got = client.ask("run", language="bash", code="nproc", **wish)
    return got["machine_kind"], got["stdout"].decode().strip()
made = client.ask("open_session", name="two", vm_type="two")
assert made["machine_kind"] == "qemu" and made["memory_mib"] == 300, made
assert look(session="two") == ("qemu", "2"), look(session="two")
assert look(isolation="vm") == ("qemu", "1"), look(isolation="vm")
child = client.ask("fork", session="two", count=1)["sessions"][0]
assert look(session=child["session"]) == ("qemu", "2"), child
try:
    client.ask("open_session", vm_type="none")
    raise AssertionError("a session was served by less than it asked for")
except Refused as why:
    assert why.name == "isolation_unavailable" and "no-such-image" in why.detail, why
assert any("qemu:no-such-image: not served" in line for line in client.ask("health")["isolation"])
)py"));
}

TEST_CASE("A virtual machine's session survives the death of its server, with its files") {
  NEEDS_SERVER();
  server_home home;
  NEEDS_IMAGE(home);
  {
    server serving{home, small_image};
    REQUIRE_SCRIPT(serving, script(R"py(
client.ask("open_session", name="virtual", vm_type="berth-vm")
client.ask("run", session="virtual", language="bash", code="echo kept > /tmp/file")
taken = client.ask("snapshot", session="virtual", name="one")
until = time.time() + 120
while not taken["durable"]:
    assert time.time() < until, taken
    time.sleep(0.2)
    taken = client.ask("snapshots", session="virtual")["snapshots"][0]
client.ask("run", session="virtual", language="bash", code="echo lost > /tmp/file")
)py"));
    serving.program().signal(SIGKILL);
    REQUIRE(serving.program().wait());
  }
  server serving{home, small_image};
  REQUIRE_SCRIPT(serving, script(R"py(
session = client.ask("sessions", session="virtual")["sessions"][0]
assert session["machine_kind"] == "qemu", session
client.ask("rollback", session="virtual", snapshot="one")
got = client.ask("run", session="virtual", language="bash", code="cat /tmp/file; uname -r")
assert got["machine_kind"] == "qemu", got
assert got["stdout"].decode().split()[0] == "kept", got
assert got["stdout"].decode().split()[1] != host, got
)py"));
}

TEST_CASE("Where no virtual machine can be made, a request that asks for one is refused") {
  NEEDS_SERVER();
  server_home home;
  server serving{home, {{"kind", "namespace"}}};
  REQUIRE_SCRIPT(serving, script(R"py(
health = client.ask("health")
assert health["machine_kind"] == "namespace", health
assert any(line.startswith("qemu: not served: ") for line in health["isolation"]), health
try:
    client.ask("run", language="bash", code="true", isolation="vm")
    raise AssertionError("a job was served by less than it asked for")
except Refused as why:
    assert why.name == "isolation_unavailable", why
)py"));
}

TEST_CASE("Where Firecracker cannot run, health, the refusal, the start and doctor say why") {
  NEEDS_SERVER();
  server_home home;
  const nlohmann::json without = {{"kind", "namespace"},
                                  {"firecracker", {{"binary", "/no/such/firecracker"}}}};
  server serving{home, without};
  REQUIRE_SCRIPT(serving, script(R"py(
lines = [line for line in client.ask("health")["isolation"] if line.startswith("firecracker: ")]
assert len(lines) == 1 and "not served" in lines[0] and "/no/such/firecracker" in lines[0], lines
for wish in (dict(kind="firecracker"), dict(vm_type="berth-firecracker")):
    try:
        client.ask("run", language="bash", code="true", **wish)
        raise AssertionError("a job was served by less than it asked for")
    except Refused as why:
        assert why.name == "isolation_unavailable" and "firecracker" in why.detail, why
)py"));
  auto start = [&](const std::string& binary) {
    const std::string dir = home.path() + "/other";
    return execute({BERTH_BUILD_DIR "/berth", "serve", "--set", "kind=firecracker", "--set",
                    "firecracker.binary=" + binary, "--set", "runtime_dir=" + dir, "--set",
                    "data_dir=" + dir});
  };
  auto refused = start("/no/such/firecracker");
  CHECK(refused.code != 0);
  CHECK(refused.err.find("install Firecracker") != std::string::npos);
  auto told = execute({BERTH_BUILD_DIR "/berth", "doctor", "--json"});
  CHECK(told.out.find("\"firecracker\"") != std::string::npos);
  if (told.out.find("KVM does not work here") == std::string::npos)
    return;
  refused = start(BERTH_SOURCE_DIR "/tests/support/firecracker_server.py");
  CHECK(refused.code != 0);
  CHECK(refused.err.find("KVM is needed") != std::string::npos);
}
