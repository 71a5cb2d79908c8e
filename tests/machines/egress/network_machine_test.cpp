// SPDX-License-Identifier: Apache-2.0
#include "machines/egress/proxy.hpp"
#include "tests/machines/network_programs.hpp"
#include "tests/support/skip.hpp"
#include "tests/support/sockets.hpp"

using namespace berth;
using namespace berth::test;

namespace {

const std::string real_lib = std::string{BERTH_BUILD_DIR} + "/lib/berth";

/// Namespace machines with a network of the places, beside those of the plant without one.
struct network_plant {
  explicit network_plant(std::vector<std::string> places)
    : plain(test_settings(real_lib)) {
    std::vector<network_rule> rules;
    for (const auto& place : places)
      rules.push_back(parse_network_rule(place).value());
    out = std::make_shared<machines::egress::proxy>(egress_loop, std::move(rules), "the test");
    if (plain.source)
      source = std::make_unique<machines::namespace_source>(*plain.source, out);
  }

  machines::reactor egress_loop;
  plant plain;
  std::shared_ptr<machines::egress::proxy> out;
  std::unique_ptr<machines::namespace_source> source;
};

} // namespace

TEST_CASE("a machine with a network reaches what is listed, by the proxy, and nothing else") {
  tcp_server listed{tcp_server::echo_head};
  tcp_server other{tcp_server::echo_head};
  const std::string place = "127.0.0.1:" + std::to_string(listed.port);
  const std::string elsewhere = "127.0.0.1:" + std::to_string(other.port);
  network_plant made{{place}};
  if (!made.source)
    return skip("no machine can be made here: " + made.plain.problem);
  auto listener = std::make_shared<heard>();
  auto machine = made.source->start({"net-1"}, listener);
  REQUIRE(listener->next<guest::hello>());
  CHECK(python(*machine, *listener, by_proxy + fetch("http://" + place + "/")) == "200\n");
  CHECK_THAT(python(*machine, *listener, by_proxy + fetch("http://" + elsewhere + "/")),
             Catch::Matchers::Contains("403") && Catch::Matchers::Contains("list of the test"));
  CHECK_THAT(python(*machine, *listener, fetch("http://api.test/")),
             Catch::Matchers::Contains("403"));
  CHECK_THAT(python(*machine, *listener, fetch("https://api.test/")),
             Catch::Matchers::Contains("403"));
  // Neither is the host's loopback the machine's, nor is there a way around.
  CHECK(python(*machine, *listener, connect_past("127.0.0.1", listed.port)) == "not reached\n");
  CHECK(python(*machine, *listener, connect_past("1.1.1.1", 443)) == "not reached\n");
  CHECK(listed.connections == 1);
  CHECK(other.connections == 0);
  CHECK(made.out->counts().connected == 1);
  CHECK(made.out->counts().refused == 3);
  CHECK(test::run(*machine, *listener, "bash", "echo $https_proxy $HTTP_PROXY $no_proxy").out
        == "http://127.0.0.1:3128 http://127.0.0.1:3128 localhost,127.0.0.1,::1\n");
  // The socket is the proxy's: no process of the machine has it, or can take its place.
  CHECK(python(*machine, *listener,
               "import socket\ns = socket.socket()\n"
               "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
               "try:\n  s.bind(('127.0.0.1', 3128))\n  s.listen()\n  print('taken')\n"
               "except OSError as e:\n  print('in use')\n")
        == "in use\n");
  machine->destroy();
  REQUIRE(listener->wait_gone());
}

TEST_CASE("machines beside them, of the same spawner, have no network") {
  tcp_server listed{tcp_server::echo_head};
  network_plant made{{"127.0.0.1:" + std::to_string(listed.port)}};
  if (!made.source)
    return skip("no machine can be made here: " + made.plain.problem);
  auto [machine, listener] = made.plain.start("plain-1");
  REQUIRE(listener->next<guest::hello>());
  CHECK(python(*machine, *listener, connect_past("127.0.0.1", machines::way_out_port))
        == "not reached\n");
  CHECK(test::run(*machine, *listener, "bash", "env | grep -ci proxy").out == "0\n");
  machine->destroy();
  REQUIRE(listener->wait_gone());
  CHECK(listed.connections == 0);
}

TEST_CASE("a machine that is gone leaves no socket, and a fork has one of its own") {
  tcp_server listed{tcp_server::echo_head};
  const std::string place = "127.0.0.1:" + std::to_string(listed.port);
  network_plant made{{place}};
  if (!made.source)
    return skip("no machine can be made here: " + made.plain.problem);
  auto hears = std::make_shared<heard>();
  auto parent = made.source->start({"parent"}, hears);
  REQUIRE(hears->next<guest::hello>());
  parent->freeze_files(1);
  auto frozen = hears->next_files(machines::files_step::freeze);
  REQUIRE(frozen);
  auto fork_hears = std::make_shared<heard>();
  auto fork =
      frozen->error.empty()
          ? made.source->start({.id = "fork", .parent = "parent", .checkpoint = 1}, fork_hears)
          : made.source->start({.id = "fork"}, fork_hears);
  REQUIRE(fork_hears->next<guest::hello>());
  parent->destroy();
  REQUIRE(hears->wait_gone());
  CHECK(python(*fork, *fork_hears, by_proxy + fetch("http://" + place + "/")) == "200\n");
  fork->destroy();
  REQUIRE(fork_hears->wait_gone());
  for (int left = 1'000; left > 0 && made.out->counts().open > 0; --left)
    ::usleep(10'000);
  CHECK(made.out->counts().open == 0);
}
