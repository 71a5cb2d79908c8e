// SPDX-License-Identifier: Apache-2.0
#include "bridge/zmq/access.hpp"
#include "tests/bridge/zmq/fixture.hpp"

#include <catch2/catch.hpp>

#include <array>

using namespace berth;
using namespace berth::test;

namespace {

struct key_pair {
  key_pair() {
    std::array<char, 41> made_public{};
    std::array<char, 41> made_secret{};
    if (zmq_curve_keypair(made_public.data(), made_secret.data()) != 0)
      throw std::runtime_error("this libzmq has no CURVE");
    open = made_public.data();
    secret = made_secret.data();
  }
  std::string open;
  std::string secret;
};

void use_keys(zmq_peer& peer, const key_pair& own, const std::string& servers) {
  peer.socket.set(zmq::sockopt::curve_serverkey, servers);
  peer.socket.set(zmq::sockopt::curve_publickey, own.open);
  peer.socket.set(zmq::sockopt::curve_secretkey, own.secret);
}

bool is_served(zmq_peer& peer, const std::string& endpoint) {
  peer.socket.set(zmq::sockopt::rcvtimeo, 500);
  peer.socket.set(zmq::sockopt::sndtimeo, 500);
  peer.socket.connect(endpoint);
  return peer.send({"BERTH/1", request_bytes(1, "health", get_health{})})
         && !peer.receive().empty();
}

std::string detail_of(const zmq_options& options) {
  error wrong = check_access(options);
  return wrong ? describe_error(wrong) : "";
}

} // namespace

TEST_CASE("Only this host's own addresses count as loopback") {
  for (const char* near : {"tcp://127.0.0.1:5555", "tcp://127.1.2.3:*", "tcp://localhost:1",
                           "tcp://[::1]:5555", "tcp://lo:5555"})
    CHECK(is_loopback(near));
  for (const char* far :
       {"tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://eth0:5555", "tcp://192.168.0.1:1",
        "tcp://[::]:1", "tcp://127.evil.example:1", "tcp://example.com:1", "ipc:///tmp/x", ""})
    CHECK(!is_loopback(far));
}

TEST_CASE("Endpoints and keys are checked before anything is bound") {
  zmq_options options;
  CHECK(detail_of(options).empty());
  options.router = "tcp://0.0.0.0:5555";
  CHECK_THAT(detail_of(options), Catch::StartsWith("unauthorized: zmq_router: "));
  key_pair keys;
  options.curve_secret_key = keys.secret;
  CHECK_THAT(detail_of(options), Catch::Contains("both or neither"));
  options.curve_public_key = key_pair{}.open;
  CHECK_THAT(detail_of(options), Catch::Contains("does not belong"));
  options.curve_public_key = keys.open;
  CHECK(detail_of(options).empty());
  options.curve_clients = {keys.open, "short"};
  CHECK_THAT(detail_of(options), Catch::Contains("zmq_curve_clients[1]"));
  options = {};
  options.router = "udp://127.0.0.1:1";
  CHECK_THAT(detail_of(options), Catch::Contains("zmq_router: expected tcp://"));
  options = {};
  options.events = "tcp://127.0.0.1:99999";
  CHECK_THAT(detail_of(options), Catch::Contains("zmq_events: expected tcp://"));
  options = {};
  options.ipc = "/tmp/x";
  CHECK_THAT(detail_of(options), Catch::Contains("zmq_ipc: expected ipc://"));
}

TEST_CASE("With keys, a TCP client needs one that is known, and ipc stays with its file's mode") {
  key_pair server_keys;
  key_pair known;
  key_pair stranger;
  zmq_options options;
  options.curve_secret_key = server_keys.secret;
  options.curve_public_key = server_keys.open;
  options.curve_clients = {known.open};
  zmq_server server{options};
  const std::string& door = server.bridge->router_endpoint();

  zmq_peer friendly{zmq::socket_type::dealer};
  use_keys(friendly, known, server_keys.open);
  CHECK(is_served(friendly, door));

  zmq_peer unknown{zmq::socket_type::dealer};
  use_keys(unknown, stranger, server_keys.open);
  CHECK(!is_served(unknown, door));

  zmq_peer plain{zmq::socket_type::dealer};
  CHECK(!is_served(plain, door));

  zmq_peer local{zmq::socket_type::dealer};
  CHECK(is_served(local, server.bridge->ipc_endpoint()));

  zmq_peer subscriber{zmq::socket_type::sub};
  use_keys(subscriber, known, server_keys.open);
  subscriber.socket.connect(server.bridge->events_endpoint());
  subscriber.socket.set(zmq::sockopt::subscribe, "");
  REQUIRE(eventually([&] { return server.outbox->wanted(); }));
  server.outbox->publish("pool", {'x'});
  CHECK(subscriber.receive().size() == 2);
}

TEST_CASE("With keys and no list, every client that knows the server's key comes in") {
  key_pair server_keys;
  key_pair any;
  zmq_options options;
  options.curve_secret_key = server_keys.secret;
  options.curve_public_key = server_keys.open;
  zmq_server server{options};
  zmq_peer peer{zmq::socket_type::dealer};
  use_keys(peer, any, server_keys.open);
  CHECK(is_served(peer, server.bridge->router_endpoint()));
}
