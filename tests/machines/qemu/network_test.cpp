// SPDX-License-Identifier: Apache-2.0
#include "machines/egress/proxy.hpp"
#include "tests/machines/network_programs.hpp"
#include "tests/machines/qemu/vm_fixture.hpp"
#include "tests/support/skip.hpp"
#include "tests/support/sockets.hpp"

#include <fstream>
#include <set>

using namespace berth;
using namespace berth::test;

namespace {

/// Virtual machines that reach one server on the host, and another one that they do not.
struct network_plant {
  network_plant()
    : place("127.0.0.1:" + std::to_string(listed.port))
    , out(std::make_shared<machines::egress::proxy>(
          egress_loop, std::vector{parse_network_rule(place).value()}, "the test"))
    , vm("network", patient(), {}, true, out) {}

  tcp_server listed{tcp_server::echo_head};
  tcp_server other{tcp_server::echo_head};
  const std::string place;
  machines::reactor egress_loop;
  std::shared_ptr<machines::egress::proxy> out;
  vm_plant vm;
};

/// Fetches from a place on the host by the proxy.
std::string ask_for(const std::string& place) {
  return by_proxy + fetch("http://" + place + "/");
}

std::set<pid_t> children_of(pid_t pid) {
  std::set<pid_t> found;
  const std::string name = std::to_string(pid);
  std::ifstream children{"/proc/" + name + "/task/" + name + "/children"};
  for (pid_t child = 0; children >> child;)
    found.insert(child);
  return found;
}

/// The network interfaces that a process has, by its network namespace.
std::set<std::string> interfaces_of(pid_t pid) {
  std::set<std::string> names;
  std::ifstream in{"/proc/" + std::to_string(pid) + "/net/dev"};
  for (std::string line; std::getline(in, line);)
    if (auto colon = line.find(':'); colon != std::string::npos)
      names.insert(line.substr(line.find_first_not_of(' '), colon - line.find_first_not_of(' ')));
  return names;
}

/// Brings the guest to rest, and asks for a step.
void step(machines::machine& in, heard& listener, machines::files_step which,
          machines::checkpoint_number number) {
  in.send(guest::freeze{.request = 1, .force = which == machines::files_step::roll_back});
  REQUIRE(listener.next<guest::frozen>());
  if (which == machines::files_step::freeze)
    in.freeze_files(number);
  else
    in.roll_back_files(number);
  auto done = listener.next_files(which);
  REQUIRE(done);
  INFO(done->error);
  REQUIRE(done->error.empty());
  in.send(guest::thaw{.request = 2});
  REQUIRE(listener.next<guest::thawed>());
}

} // namespace

TEST_CASE("a virtual machine with a network reaches what is listed, and nothing else") {
  network_plant made;
  if (made.vm.is_missing())
    return;
  auto listener = std::make_shared<heard>();
  auto machine = made.vm.source->start({.id = "net-1"}, listener);
  REQUIRE(listener->next<guest::hello>());
  CHECK(python(*machine, *listener, ask_for(made.place)) == "200\n");
  CHECK_THAT(python(*machine, *listener, ask_for("127.0.0.1:" + std::to_string(made.other.port))),
             Catch::Matchers::Contains("list of the test"));
  CHECK_THAT(python(*machine, *listener, ask_for("api.test")), Catch::Matchers::Contains("403"));
  // Past the proxy there is nothing: programs do not see the virtual machine's device.
  for (const char* host : {"127.0.0.1", "10.0.2.2", "10.0.2.3", "1.1.1.1"}) {
    CHECK(python(*machine, *listener, connect_past(host, made.listed.port)) == "not reached\n");
    CHECK(python(*machine, *listener, connect_past(host, 53)) == "not reached\n");
  }
  CHECK(python(*machine, *listener, connect_past("10.0.2.2", machines::way_out_port))
        == "not reached\n");
  CHECK(made.listed.connections == 1);
  CHECK(made.other.connections == 0);

  // Nor has QEMU, whatever became of it, more than a loopback with one socket.
  for (pid_t qemu : children_of(made.vm.launcher_pid))
    CHECK(interfaces_of(qemu) == std::set<std::string>{"lo"});

  // A state of it has the network again, and so has a fork.
  step(*machine, *listener, machines::files_step::freeze, 1);
  CHECK(python(*machine, *listener, ask_for(made.place)) == "200\n");
  auto hears = std::make_shared<heard>();
  auto fork = made.vm.source->start({.id = "net-2", .parent = "net-1", .checkpoint = 1}, hears);
  REQUIRE(hears->next<guest::hello>());
  CHECK(python(*fork, *hears, ask_for(made.place)) == "200\n");
  step(*machine, *listener, machines::files_step::roll_back, 1);
  CHECK(python(*machine, *listener, ask_for(made.place)) == "200\n");
  CHECK(made.listed.connections == 4);
  CHECK(made.out->counts().refused == 2);
  machine->destroy();
  fork->destroy();
  REQUIRE(listener->wait_gone());
  REQUIRE(hears->wait_gone());
}
