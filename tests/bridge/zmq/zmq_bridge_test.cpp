// SPDX-License-Identifier: Apache-2.0
#include "bridge/zmq/dispatch.hpp"
#include "bridge/zmq/zmq_bridge.hpp"
#include "tests/bridge/zmq/fixture.hpp"

#include <catch2/catch.hpp>
#include <sys/stat.h>

#include <random>
#include <set>

using namespace berth;
using namespace berth::test;

namespace {

const std::string protocol{"BERTH/1"};

std::string run_bytes(std::uint64_t id, const std::string& code) {
  run request;
  request.code = code;
  request.language = "python";
  return request_bytes(id, "run", request);
}

/// Packs what a test writes with a callback.
template <class Write>
std::string packed(Write write) {
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> out{buffer};
  write(out);
  return {buffer.data(), buffer.size()};
}

/// What a DEALER with a delimiter gets for a body.
reply_view ask(zmq_peer& peer, const std::string& body) {
  peer.send({"", protocol, body});
  frame_list frames = peer.receive();
  REQUIRE(frames.size() == 3);
  CHECK(frames[0].empty());
  CHECK(frames[1] == protocol);
  return read_reply(frames[2]);
}

ec code_of(const reply_view& reply) {
  CHECK(!reply.ok);
  CHECK(reply.error.name == name_of(static_cast<ec>(reply.error.code)));
  return static_cast<ec>(reply.error.code);
}

} // namespace

TEST_CASE("A REQ client gets its answer over TCP and over ipc") {
  zmq_server server;
  for (const auto& endpoint : {server.bridge->router_endpoint(), server.bridge->ipc_endpoint()}) {
    zmq_peer peer{zmq::socket_type::req, endpoint};
    peer.send({protocol, run_bytes(7, "print(1)")});
    frame_list frames = peer.receive();
    REQUIRE(frames.size() == 2);
    CHECK(frames[0] == protocol);
    reply_view reply = read_reply(frames[1]);
    CHECK(reply.ok);
    CHECK(reply.id == 7);
    CHECK(reply.body<outcome>() == ended_with("print(1)"));
  }
}

TEST_CASE("A REQ client that numbers its requests gets the number back") {
  zmq_server server;
  zmq_peer peer{zmq::socket_type::req};
  peer.socket.set(zmq::sockopt::req_correlate, true);
  peer.socket.set(zmq::sockopt::req_relaxed, true);
  peer.socket.connect(server.bridge->router_endpoint());
  peer.send({protocol, run_bytes(1, "hold")});
  peer.send({protocol, run_bytes(1, "second")});
  frame_list frames = peer.receive();
  REQUIRE(frames.size() == 2);
  CHECK(read_reply(frames[1]).body<outcome>() == ended_with("second"));
}

TEST_CASE("A DEALER is answered in the shape that it chose") {
  zmq_server server;
  zmq_peer peer{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  peer.send({protocol, run_bytes(1, "a")});
  frame_list bare = peer.receive();
  REQUIRE(bare.size() == 2);
  CHECK(bare[0] == protocol);
  peer.send({"", protocol, run_bytes(2, "b")});
  frame_list delimited = peer.receive();
  REQUIRE(delimited.size() == 3);
  CHECK(delimited[0].empty());
  peer.send({"hop-1", "hop-2", "", protocol, run_bytes(3, "c")});
  frame_list hops = peer.receive();
  REQUIRE(hops.size() == 5);
  CHECK(hops[0] == "hop-1");
  CHECK(hops[1] == "hop-2");
  CHECK(read_reply(hops[4]).id == 3);
}

TEST_CASE("An id comes back as it was, and a missing one comes back as nil") {
  zmq_server server;
  zmq_peer peer{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  auto with_id = [&](auto write_id) {
    return packed([&](auto& out) {
      out.pack_map(2);
      out.pack("op");
      out.pack("health");
      out.pack("id");
      write_id(out);
    });
  };
  auto id_of = [](const reply_view& reply) {
    auto tree = object_tree::parse(reply.raw);
    return packed([&](auto& out) { out.pack(*detail::find_member(tree->root(), "id")); });
  };
  auto same = [&](auto write_id) {
    reply_view reply = ask(peer, with_id(write_id));
    CHECK(reply.ok);
    CHECK(id_of(reply) == packed(write_id));
  };
  same([](auto& out) { out.pack("text"); });
  same([](auto& out) { out.pack(-5); });
  same([](auto& out) { out.pack(std::uint64_t{18446744073709551615U}); });
  same([](auto& out) { out.pack(std::vector<char>{'\0', '\xff'}); });
  same([](auto& out) { out.pack_nil(); });
  reply_view none = ask(peer, packed([](auto& out) {
                          out.pack_map(1);
                          out.pack("op");
                          out.pack("health");
                        }));
  CHECK(none.ok);
  CHECK(id_of(none) == nil_id);
  for (const auto& wrong :
       {with_id([](auto& out) { out.pack_array(0); }), with_id([](auto& out) { out.pack(1.5); }),
        with_id([](auto& out) { out.pack(std::string(300, 'x')); })}) {
    reply_view reply = ask(peer, wrong);
    CHECK(code_of(reply) == ec::malformed);
    CHECK(reply.error.detail.starts_with("id: "));
  }
}

TEST_CASE("Frames that are not a request are answered with what is wrong") {
  zmq_server server;
  zmq_peer peer{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  const std::string good = run_bytes(1, "x");
  auto refused = [&](const frame_list& frames, ec code, const std::string& named) {
    INFO("frames: " << frames.size());
    peer.send(frames);
    frame_list answer = peer.receive();
    REQUIRE(answer.size() >= 2);
    reply_view reply = read_reply(answer.back());
    CHECK(code_of(reply) == code);
    CHECK_THAT(reply.error.detail, Catch::Contains(named));
  };
  refused({""}, ec::malformed, "frames: ");
  refused({good}, ec::malformed, "frames: ");
  refused({"", protocol}, ec::malformed, "frames: ");
  refused({protocol, good, good}, ec::malformed, "frames: ");
  refused({"", protocol, good, "more"}, ec::malformed, "frames: ");
  refused({"", protocol, good, "more", "more"}, ec::malformed, "frames: ");
  refused({"a", "b", "c", "d", "e", "f"}, ec::malformed, "frames: ");
  refused({"a", "b", "c", "d", "e", "", protocol, good}, ec::malformed, "frames: ");
  refused(frame_list(40, "x"), ec::malformed, "frames: ");
  refused({"", "BERTH/2", good}, ec::unsupported, "'BERTH/2'");
  refused({"", "HTTP/1.1", good}, ec::malformed, "protocol frame");
  refused({"", std::string(5000, '\xff'), good}, ec::malformed, "protocol frame");
  refused({protocol, ""}, ec::malformed, "request: is empty");
  CHECK(server.log->asked == 0);
}

TEST_CASE("Bodies that are not a request name the member at fault") {
  zmq_server server;
  zmq_peer peer{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  auto refused = [&](const std::string& body, ec code, const std::string& named) {
    reply_view reply = ask(peer, body);
    CHECK(code_of(reply) == code);
    CHECK_THAT(reply.error.detail, Catch::Contains(named));
    return reply;
  };
  auto call = [](const std::string& op, auto write_body) {
    return packed([&](auto& out) {
      out.pack_map(3);
      out.pack("id");
      out.pack(9);
      out.pack("op");
      out.pack(op);
      out.pack("body");
      write_body(out);
    });
  };
  refused("\xc1", ec::malformed, "request: ");
  refused(run_bytes(1, "x").substr(0, 20), ec::malformed, "in the middle");
  refused(run_bytes(1, "x") + "x", ec::malformed, "after the msgpack value");
  refused(packed([](auto& out) { out.pack(5); }), ec::malformed, "must be a map");
  refused(packed([](auto& out) { out.pack_map(0); }), ec::malformed, "op: is missing");
  refused(packed([](auto& out) {
            out.pack_map(1);
            out.pack("op");
            out.pack(5);
          }),
          ec::malformed, "op: must be text");
  reply_view unknown =
      refused(call("rnu", [](auto& out) { out.pack_map(0); }), ec::unsupported, "did you mean run");
  CHECK(unknown.id == 9);
  refused(call("\x1b[31mzzzzzzzz", [](auto& out) { out.pack_map(0); }), ec::unsupported,
          "'?[31mzzzzzzzz'");
  refused(call("run", [](auto& out) { out.pack("text"); }), ec::malformed, "body: must be a map");
  refused(call("run", [](auto& out) { out.pack_nil(); }), ec::malformed, "code: is missing");
  refused(call("run",
               [](auto& out) {
                 out.pack_map(3);
                 out.pack("code");
                 out.pack("x");
                 out.pack("language");
                 out.pack("python");
                 out.pack("timeout_ms");
                 out.pack(-1);
               }),
          ec::malformed, "timeout_ms: must not be negative");
  CHECK(server.log->asked == 0);
}

TEST_CASE("Msgpack that promises more than it holds is refused and costs nothing") {
  zmq_server server;
  zmq_peer peer{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  const std::string map_bomb{"\xdf\x42\xe8\x00\x00", 5};
  const std::string text_bomb{"\xdb\xff\xff\xff\xff", 5};
  std::string deep(2'000'000, '\x91');
  // 31 MiB of empty lists in lists: a byte each here, 24 in memory.
  std::string wide{"\xdc\x01\xdc", 3};
  for (int i = 0; i < 476; ++i)
    wide += std::string{"\xdd\x00\x01\x00\x00", 5} + std::string(65536, '\x90');
  for (const auto& bomb : {map_bomb, text_bomb, deep, wide}) {
    reply_view reply = ask(peer, bomb);
    CHECK(code_of(reply) == ec::malformed);
    CHECK_THAT(reply.error.detail, Catch::StartsWith("request: "));
  }
  CHECK(ask(peer, run_bytes(1, "still here")).ok);
}

TEST_CASE("A message beyond the limit ends its connection and no other") {
  zmq_server server;
  zmq_peer other{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  zmq_peer peer{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  peer.socket.set(zmq::sockopt::rcvtimeo, 200);
  peer.send({"", protocol, std::string(limits::request_bytes_max + limits::mib, 'x')});
  CHECK(peer.receive().empty());
  CHECK(ask(other, run_bytes(1, "fine")).ok);
}

TEST_CASE("Errors of the gateway arrive with code, name, detail and hint") {
  zmq_server server;
  zmq_peer peer{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  reply_view rejected = ask(peer, run_bytes(1, "refuse"));
  CHECK(code_of(rejected) == ec::rejected);
  CHECK(rejected.error.detail == "the policy forbids it");
  CHECK(!rejected.error.retry_after_ms);
  reply_view busy = ask(peer, run_bytes(2, "busy"));
  CHECK(code_of(busy) == ec::no_capacity);
  CHECK(busy.error.retry_after_ms == maybe<std::uint32_t>{250});
}

TEST_CASE("An id in use is refused on its connection and free again after its answer") {
  zmq_server server;
  zmq_peer peer{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  zmq_peer other{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  peer.send({"", protocol, run_bytes(5, "hold")});
  CHECK(code_of(ask(peer, run_bytes(5, "again"))) == ec::already_exists);
  CHECK(ask(other, run_bytes(5, "another's")).ok);
  cancel stop;
  stop.job = "j-1";
  peer.send({"", protocol, request_bytes(6, "cancel", stop)});
  std::set<std::uint64_t> ids;
  ids.insert(read_reply(peer.receive().at(2)).id);
  ids.insert(read_reply(peer.receive().at(2)).id);
  CHECK(ids == std::set<std::uint64_t>{5, 6});
  CHECK(ask(peer, run_bytes(5, "free")).ok);
}

TEST_CASE("Requests in flight are bounded per connection and in all") {
  zmq_options options;
  options.requests_per_connection_max = 4;
  options.requests_open_max = 6;
  zmq_server server{options};
  zmq_peer one{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  zmq_peer two{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  for (std::uint64_t id = 0; id < 4; ++id)
    one.send({"", protocol, run_bytes(id, "hold")});
  reply_view full = ask(one, run_bytes(99, "x"));
  CHECK(code_of(full) == ec::no_capacity);
  CHECK(full.id == 99);
  CHECK(full.error.retry_after_ms.has_value());
  for (std::uint64_t id = 0; id < 2; ++id)
    two.send({"", protocol, run_bytes(id, "hold")});
  CHECK(code_of(ask(two, run_bytes(99, "x"))) == ec::no_capacity);
  CHECK(server.bridge->counters().refused == 2);
}

TEST_CASE("A client that goes away with requests in flight leaves nothing behind") {
  zmq_server server;
  {
    zmq_peer gone{zmq::socket_type::dealer, server.bridge->ipc_endpoint()};
    for (std::uint64_t id = 0; id < 32; ++id)
      gone.send({protocol, run_bytes(id, "hold")});
    REQUIRE(eventually([&] { return server.bridge->counters().open == 32; }));
  }
  zmq_peer peer{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  cancel stop;
  stop.job = "j-1";
  // ZeroMQ notices the end of a connection in its own time; the answers fail only after that.
  CHECK(ask(peer, request_bytes(1, "cancel", stop)).ok);
  CHECK(eventually([&] {
    ask(peer, run_bytes(2, "tick"));
    auto now = server.bridge->counters();
    return now.open == 0 && now.connections == 0;
  }));
}

TEST_CASE("A client that does not read gets all its answers once it does") {
  zmq_options options;
  options.high_water_mark = 4;
  options.requests_per_connection_max = 200;
  zmq_server server{options};
  zmq_peer slow{zmq::socket_type::dealer};
  slow.socket.set(zmq::sockopt::rcvhwm, 2);
  slow.socket.set(zmq::sockopt::rcvbuf, 4096);
  slow.socket.connect(server.bridge->router_endpoint());
  berth::read request;
  request.job = "j-1";
  request.bytes_max = 200'000;
  for (std::uint64_t id = 0; id < 150; ++id)
    REQUIRE(slow.send({protocol, request_bytes(id, "read", request)}));
  REQUIRE(eventually([&] { return server.log->asked == 150; }));
  zmq_peer other{zmq::socket_type::dealer, server.bridge->router_endpoint()};
  CHECK(ask(other, run_bytes(1, "not in the way")).ok);
  std::set<std::uint64_t> ids;
  for (int i = 0; i < 150; ++i) {
    frame_list frames = slow.receive();
    REQUIRE(frames.size() == 2);
    ids.insert(read_reply(frames[1]).id);
  }
  CHECK(ids.size() == 150);
}

TEST_CASE("Ten thousand requests with 64 in flight get one answer each") {
  zmq_server server;
  zmq_peer peer{zmq::socket_type::dealer, server.bridge->ipc_endpoint()};
  std::mt19937 random{20261123};
  constexpr std::uint64_t total = 10'000;
  std::uint64_t sent = 0;
  std::set<std::uint64_t> open;
  auto send_one = [&] {
    std::uint64_t id = sent++;
    open.insert(id);
    std::string body;
    switch (random() % 7) {
    case 0:
      body = run_bytes(id, std::string(random() % 3000, 'c'));
      break;
    case 1:
      body = run_bytes(id, "refuse");
      break;
    case 2:
      body = request_bytes(id, "health", get_health{});
      break;
    case 3:
      body = request_bytes(id, "nonsense", get_health{});
      break;
    case 4:
      body = request_bytes(id, "history", query_history{});
      break;
    case 5:
      body = request_bytes(id, "describe", describe{});
      break;
    default:
      body = request_bytes(id, "files.read", get_health{});
    }
    if (random() % 2 == 0)
      peer.send({protocol, body});
    else
      peer.send({"", protocol, body});
  };
  for (int i = 0; i < 64; ++i)
    send_one();
  for (std::uint64_t got = 0; got < total; ++got) {
    frame_list frames = peer.receive();
    REQUIRE(!frames.empty());
    REQUIRE(open.erase(read_reply(frames.back()).id) == 1);
    if (sent < total)
      send_one();
  }
  CHECK(open.empty());
  CHECK(eventually([&] { return server.bridge->counters().connections == 0; }));
}

TEST_CASE("A subscriber sees events with their offsets, and only those of its topic") {
  zmq_server server;
  CHECK(!server.outbox->wanted());
  server.outbox->publish("job.j-1.stdout", {});
  CHECK(server.bridge->counters().events == 0);
  {
    zmq_peer subscriber{zmq::socket_type::sub, server.bridge->events_endpoint()};
    subscriber.socket.set(zmq::sockopt::subscribe, "job.j-1.");
    REQUIRE(eventually([&] { return server.outbox->wanted(); }));
    std::uint64_t offset = 0;
    for (int i = 0; i < 100; ++i) {
      output_event event{.job = "j-1", .offset = offset, .data = bytes(1000, 'x')};
      server.outbox->publish("job.j-2.stdout", encode(event));
      server.outbox->publish("job.j-1.stdout", encode(event));
      offset += 1000;
    }
    for (std::uint64_t i = 0; i < 100; ++i) {
      frame_list frames = subscriber.receive();
      REQUIRE(frames.size() == 2);
      CHECK(frames[0] == "job.j-1.stdout");
      auto event = decode<output_event>(frames[1]);
      REQUIRE(event);
      CHECK(event->offset == i * 1000);
    }
  }
  CHECK(eventually([&] { return !server.outbox->wanted(); }));
  CHECK(server.bridge->counters().subscriptions == 0);
}

TEST_CASE("What waits for the bridge is bounded, and the oldest events go first") {
  zmq_outbox outbox{10, 1000};
  outbox.publish("nobody", {});
  outbox.want(true);
  for (char i = 0; i < 25; ++i)
    outbox.publish("topic", {i});
  outbox.put({.to = {}, .id = {}, .body = {}});
  std::vector<zmq_reply> replies;
  std::vector<zmq_event> events;
  CHECK(outbox.take(replies, events, 4));
  CHECK(replies.size() == 1);
  REQUIRE(events.size() == 4);
  CHECK(events.front().body == bytes{15});
  CHECK(!outbox.take(replies, events, 100));
  CHECK(events.size() == 6);
  CHECK(events.back().body == bytes{24});
  CHECK(outbox.events_dropped() == 15);
  for (int i = 0; i < 5; ++i)
    outbox.publish("large", bytes(400, 'x'));
  outbox.take(replies, events, 100);
  CHECK(events.size() == 2);
  outbox.close();
  outbox.publish("late", {});
  outbox.put({.to = {}, .id = {}, .body = {}});
  outbox.take(replies, events, 100);
  CHECK((replies.empty() && events.empty()));
}

TEST_CASE("The socket file is guarded, replaces a dead one, and never a live one or a file") {
  scratch_folder folder;
  zmq_options options;
  options.ipc = "ipc://" + folder.file("sub/berth.ipc");
  {
    zmq_server server{options};
    struct stat there {};
    REQUIRE(::stat(folder.file("sub/berth.ipc").c_str(), &there) == 0);
    CHECK((there.st_mode & 0777) == 0660);
    CHECK_THROWS_WITH(zmq_server{options}, Catch::Contains("another server answers there"));
    zmq_peer peer{zmq::socket_type::dealer, server.bridge->ipc_endpoint()};
    CHECK(ask(peer, run_bytes(1, "still served")).ok);
  }
  options.ipc = "ipc://" + folder.file("stale.ipc");
  {
    // A server that was killed leaves its socket: bound once, never unlinked.
    zmq::context_t context;
    zmq::socket_t socket{context, zmq::socket_type::rep};
    socket.bind(options.ipc);
    std::filesystem::rename(folder.file("stale.ipc"), folder.file("kept"));
    socket.close();
    context.close();
    std::filesystem::rename(folder.file("kept"), folder.file("stale.ipc"));
  }
  CHECK_NOTHROW(zmq_server{options});
  options.ipc = "ipc://" + folder.file("file");
  std::fclose(std::fopen(folder.file("file").c_str(), "w"));
  CHECK_THROWS_WITH(zmq_server{options}, Catch::Contains("no socket"));
  CHECK(std::filesystem::exists(folder.file("file")));
  options.ipc = "ipc://" + folder.file(std::string(120, 'x'));
  CHECK_THROWS_WITH(zmq_server{options}, Catch::Contains("107 bytes"));
}

TEST_CASE("An operation that is nearly right is named") {
  CHECK(close_operations("rnu").front() == "run");
  CHECK(close_operations("session").front() == "sessions");
  CHECK(close_operations("").empty());
  CHECK(close_operations(std::string(1000, 'x')).empty());
  CHECK(close_operations("zzzzzzzz").empty());
}

TEST_CASE("The bridge's own path, measured", "[.bench]") {
  zmq_server server;
  zmq_peer peer{zmq::socket_type::dealer, server.bridge->ipc_endpoint()};
  using clock = std::chrono::steady_clock;
  std::vector<double> trips;
  for (std::uint64_t i = 0; i < 5000; ++i) {
    auto start = clock::now();
    ask(peer, run_bytes(i, "x"));
    trips.push_back(std::chrono::duration<double, std::micro>(clock::now() - start).count());
  }
  std::sort(trips.begin(), trips.end());
  constexpr std::uint64_t total = 200'000;
  std::vector<std::string> bodies;
  for (std::uint64_t i = 0; i < 64; ++i)
    bodies.push_back(run_bytes(i, "x"));
  auto start = clock::now();
  for (std::uint64_t i = 0; i < 64; ++i)
    peer.send({"", protocol, bodies[i]});
  zmq::message_t frame;
  for (std::uint64_t got = 0, sent = 64; got < total; ++got) {
    do
      (void)peer.socket.recv(frame);
    while (frame.more());
    if (sent++ >= total)
      continue;
    // The id is read as any client would, to send it again.
    auto reply = object_tree::parse({frame.data<char>(), frame.size()}, {.borrow = true});
    peer.send({"", protocol, bodies[detail::find_member(reply->root(), "id")->via.u64]});
  }
  double seconds = std::chrono::duration<double>(clock::now() - start).count();
  std::printf("zmq: round trip p50 %.0f us, p99 %.0f us; 64 in flight: %.0f requests/s\n",
              trips[trips.size() / 2], trips[trips.size() * 99 / 100], total / seconds);
}
