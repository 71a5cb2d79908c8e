// SPDX-License-Identifier: Apache-2.0
#include "machines/egress/proxy.hpp"
#include "tests/support/sockets.hpp"

#include <catch2/catch.hpp>

#include <map>

using namespace berth;
using namespace berth::test;
using namespace berth::machines;
using namespace berth::machines::egress;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

namespace {

/// A proxy with a socket as a machine has it, but on the host's loopback.
struct proxy_plant {
  explicit proxy_plant(std::vector<std::string> places,
                       std::map<std::string, std::vector<resolved>> names = {},
                       const bounds& within = {}) {
    std::vector<network_rule> rules;
    for (const auto& place : places)
      rules.push_back(parse_network_rule(place).value());
    auto by = std::make_shared<resolver>([names = std::move(names)](const std::string& name) {
      auto found = names.find(name);
      return found == names.end() ? lookup_result{{}, "no such name"}
                                  : lookup_result{found->second, {}};
    });
    out = std::make_unique<proxy>(loop, std::move(rules), "vm_types.pip.network", by, within);
    door = out->serve("vm-1", listen_on(port, SOCK_CLOEXEC | SOCK_NONBLOCK));
  }
  ~proxy_plant() { door.reset(); }

  std::string ask(const std::string& request) const {
    owned_fd client = connect_to(port);
    CHECK(say(client, request));
    return hear(client);
  }
  /// A tunnel, or an invalid descriptor.
  owned_fd tunnel(const std::string& to) const {
    owned_fd client = connect_to(port);
    (void)say(client, "CONNECT " + to + " HTTP/1.1\r\n\r\n");
    std::string answer = hear(client, "\r\n\r\n");
    CHECK_THAT(answer, StartsWith("HTTP/1.1 200 "));
    return answer.starts_with("HTTP/1.1 200 ") ? std::move(client) : owned_fd{};
  }
  /// Waits until no connection is open.
  bool is_idle() const {
    for (int left = 3'000; left > 0 && out->counts().open > 0; --left)
      ::usleep(10'000);
    return out->counts().open == 0;
  }

  reactor loop;
  std::uint16_t port = 0;
  std::unique_ptr<proxy> out;
  std::shared_ptr<void> door;
};

std::string at(std::uint16_t port) {
  return "127.0.0.1:" + std::to_string(port);
}

resolved public_one(const char* address) {
  return {*parse_ip(address), false};
}

} // namespace

TEST_CASE("a listed place is reached by a tunnel and by a request for a URL") {
  tcp_server http{tcp_server::echo_head};
  tcp_server echo{tcp_server::echo};
  proxy_plant plant{{at(http.port), at(echo.port)}};
  owned_fd through = plant.tunnel(at(echo.port));
  CHECK(say(through, "hello"));
  CHECK(hear(through, {}, 5) == "hello");
  // Half of it closes; what was said comes back all the same.
  std::string much(1 << 20, 'x');
  std::thread speaks{[&] {
    CHECK(say(through, much));
    ::shutdown(through.get(), SHUT_WR);
  }};
  CHECK(hear(through) == much);
  speaks.join();

  std::string answer =
      plant.ask("GET http://" + at(http.port) + "/path HTTP/1.1\r\nHost: evil.org\r\n\r\n");
  CHECK_THAT(answer, StartsWith("HTTP/1.1 200 OK"));
  CHECK_THAT(answer, Contains("GET /path HTTP/1.1\r\nHost: " + at(http.port) + "\r\n"));
  CHECK(answer.find("evil") == std::string::npos);
  CHECK(plant.is_idle());
  auto counts = plant.out->counts();
  CHECK(counts.connected == 2);
  CHECK(counts.refused == 0);
  CHECK(counts.sent_bytes > much.size());
  CHECK(counts.received_bytes > much.size());
  CHECK_THAT(plant.out->facts().back(), Contains("which leads to " + at(http.port)));
}

TEST_CASE("what the list has not is refused with the reason, and nothing is connected to") {
  tcp_server other{tcp_server::echo};
  proxy_plant plant{{"api.test:443"}, {{"evil.org", {public_one("127.0.0.1")}}}};
  for (const auto& place : {at(other.port), "evil.org:" + std::to_string(other.port)}) {
    std::string answer = plant.ask("CONNECT " + place + " HTTP/1.1\r\n\r\n");
    CHECK_THAT(answer, StartsWith("HTTP/1.1 403 "));
    CHECK_THAT(answer, Contains(place + " is not on the list of vm_types.pip.network"));
    CHECK_THAT(plant.ask("GET http://" + place + "/ HTTP/1.1\r\n\r\n"),
               StartsWith("HTTP/1.1 403 "));
  }
  CHECK_THAT(plant.ask("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  CHECK(other.connections == 0);
  CHECK(plant.is_idle());
  CHECK(plant.out->counts().refused == 4);
  CHECK(plant.out->counts().connected == 0);
}

TEST_CASE("a name does not lead to the host or its network, unless the list has the address") {
  tcp_server inner{tcp_server::echo};
  const std::string port = std::to_string(inner.port);
  const std::map<std::string, std::vector<resolved>> names{
      {"rebound.org", {public_one("127.0.0.1")}},
      {"metadata.org", {public_one("169.254.169.254"), public_one("10.0.0.1")}},
      {"self.org", {{*parse_ip("198.41.0.4"), true}}},
      {"nowhere.org", {}}};
  {
    proxy_plant plant{{"*:" + port}, names};
    for (const char* name : {"rebound.org", "metadata.org", "self.org"}) {
      std::string answer =
          plant.ask("CONNECT " + std::string{name} + ":" + port + " HTTP/1.1\r\n\r\n");
      CHECK_THAT(answer, StartsWith("HTTP/1.1 403 "));
      CHECK_THAT(answer, Contains("only where the list has the address too"));
    }
    CHECK_THAT(plant.ask("CONNECT nowhere.org:" + port + " HTTP/1.1\r\n\r\n"),
               StartsWith("HTTP/1.1 502 "));
    CHECK(inner.connections == 0);
  }
  proxy_plant plant{{"rebound.org:" + port, at(inner.port)}, names};
  owned_fd through = plant.tunnel("rebound.org:" + port);
  CHECK(say(through, "hello"));
  CHECK(hear(through, {}, 5) == "hello");
}

TEST_CASE("a place that is not there is a failure that is told") {
  std::uint16_t closed = 0;
  listen_on(closed).reset();
  proxy_plant plant{{at(closed)}};
  std::string answer = plant.ask("CONNECT " + at(closed) + " HTTP/1.1\r\n\r\n");
  CHECK_THAT(answer, StartsWith("HTTP/1.1 502 "));
  CHECK_THAT(answer, Contains("refused"));
}

TEST_CASE("a client that is slow, silent, half closed or endless is bounded") {
  tcp_server mute{[](const owned_fd& client) { (void)hear(client); }};
  bounds within;
  within.head_within = within.idle_within = within.farewell_within = std::chrono::milliseconds{300};
  proxy_plant plant{{at(mute.port)}, {}, within};
  owned_fd silent = connect_to(plant.port);
  CHECK_THAT(hear(silent), StartsWith("HTTP/1.1 408 "));
  owned_fd slow = connect_to(plant.port);
  CHECK(say(slow, "CONNECT 127.0"));
  CHECK_THAT(hear(slow), StartsWith("HTTP/1.1 408 "));
  owned_fd half = connect_to(plant.port);
  CHECK(say(half, "CONNECT 127.0"));
  ::shutdown(half.get(), SHUT_WR);
  CHECK_THAT(hear(half), StartsWith("HTTP/1.1 400 "));
  owned_fd large = connect_to(plant.port);
  CHECK(say(large, "GET http://a.org/ HTTP/1.1\r\nA: " + std::string(head_bytes_max, 'a')));
  CHECK_THAT(hear(large), StartsWith("HTTP/1.1 431 "));
  // A refusal does not keep a connection that goes on speaking.
  owned_fd talker = connect_to(plant.port);
  CHECK(say(talker, "GET / HTTP/1.1\r\n\r\n"));
  while (say(talker, std::string(4096, 'x'))) {
  }
  // Nor does a tunnel in which nothing happens.
  owned_fd through = plant.tunnel(at(mute.port));
  CHECK(hear(through).empty());
  for (owned_fd* one : {&silent, &slow, &half, &large})
    one->reset();
  CHECK(plant.is_idle());
}

TEST_CASE("a reader that does not read is not read for") {
  std::atomic<std::size_t> sent{0};
  tcp_server flood{[&](const owned_fd& client) {
    const timeval brief{.tv_sec = 1, .tv_usec = 0};
    ::setsockopt(client.get(), SOL_SOCKET, SO_SNDTIMEO, &brief, sizeof brief);
    const std::string piece(64 * 1024, 'x');
    while (sent < std::size_t{256} << 20 && say(client, piece))
      sent += piece.size();
  }};
  proxy_plant plant{{at(flood.port)}};
  owned_fd through = plant.tunnel(at(flood.port));
  std::size_t before = 0;
  do {
    before = sent;
    ::usleep(1'500'000);
  } while (sent != before);
  // What is in the sockets of four ends, and in the buffer.
  CHECK(sent < std::size_t{64} << 20);
  through.reset();
  CHECK(plant.is_idle());
}

TEST_CASE("connections of one machine are counted, others of it wait; of all, others are told") {
  tcp_server echo{tcp_server::echo};
  bounds within;
  within.connections_per_machine = 2;
  within.connections = 3;
  proxy_plant plant{{at(echo.port)}, {}, within};
  owned_fd one = plant.tunnel(at(echo.port));
  owned_fd two = plant.tunnel(at(echo.port));
  owned_fd waits = connect_to(plant.port);
  CHECK(say(waits, "CONNECT " + at(echo.port) + " HTTP/1.1\r\n\r\n"));
  timeval brief{.tv_sec = 0, .tv_usec = 300'000};
  ::setsockopt(waits.get(), SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief);
  CHECK(hear(waits, {}, 1).empty());
  CHECK(plant.out->counts().open == 2);
  one.reset();
  ::setsockopt(waits.get(), SOL_SOCKET, SO_RCVTIMEO, &socket_limit, sizeof socket_limit);
  CHECK_THAT(hear(waits, "\r\n\r\n"), StartsWith("HTTP/1.1 200 "));

  std::uint16_t second_port = 0;
  auto second = plant.out->serve("vm-2", listen_on(second_port, SOCK_CLOEXEC | SOCK_NONBLOCK));
  owned_fd third = connect_to(second_port);
  CHECK(say(third, "CONNECT " + at(echo.port) + " HTTP/1.1\r\n\r\n"));
  CHECK_THAT(hear(third, "\r\n\r\n"), StartsWith("HTTP/1.1 200 "));
  owned_fd fourth = connect_to(second_port);
  CHECK_THAT(hear(fourth), StartsWith("HTTP/1.1 503 "));
}

TEST_CASE("a request has its own bytes, and what follows them is not another's") {
  tcp_server http{[](const owned_fd& client) {
    std::string all = hear(client, "\r\n\r\nbody");
    (void)say(client, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + all);
  }};
  proxy_plant plant{{at(http.port)}};
  const std::string url = "http://" + at(http.port) + "/";
  std::string answer = plant.ask("POST " + url + " HTTP/1.1\r\nContent-Length: 4\r\n\r\nbodyGET "
                                 + url + "second HTTP/1.1\r\n\r\n");
  CHECK_THAT(answer, Contains("\r\n\r\nbody"));
  CHECK(answer.find("second") == std::string::npos);
}

TEST_CASE("when a machine goes its connections go, and its socket") {
  tcp_server echo{tcp_server::echo};
  proxy_plant plant{{at(echo.port)}};
  owned_fd through = plant.tunnel(at(echo.port));
  owned_fd beginning = connect_to(plant.port);
  plant.door.reset();
  CHECK(hear(through).empty());
  CHECK(hear(beginning).empty());
  CHECK(plant.is_idle());
}

TEST_CASE("this host's own names are looked up as the host does, and known as its own") {
  auto found = look_up("localhost");
  REQUIRE_FALSE(found.addresses.empty());
  for (const auto& one : found.addresses) {
    CHECK(one.own);
    CHECK(std::string{kind_of_reserved(one.address)} == "loopback");
  }
  CHECK_FALSE(look_up("no-such-name.invalid").error.empty());
}
