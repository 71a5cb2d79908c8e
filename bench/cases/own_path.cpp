// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"
#include "bench/cases/oneshot.hpp"

#include <array>
#include <cstring>

namespace berth::bench {

namespace {

constexpr std::size_t in_flight = 64;

/// What every answer that is ok begins with: a map of three, "id", one byte of id, "ok", true.
constexpr std::array<unsigned char, 9> good_reply{0x83, 0xA2, 'i', 'd', 0, 0xA2, 'o', 'k', 0xC3};
constexpr std::size_t id_at = 4;

/// A DEALER that keeps its requests in flight and looks at nothing but the first bytes of replies:
/// the server is to be measured, and it shares the cores.
class lean_client {
public:
  lean_client(zmq::context_t& context, const std::string& endpoint, const json& body)
    : socket_(context, zmq::socket_type::dealer) {
    socket_.set(zmq::sockopt::linger, 0);
    socket_.set(zmq::sockopt::reconnect_ivl, 10);
    socket_.connect(endpoint);
    for (std::uint64_t id = 0; id < in_flight; ++id) // one byte of msgpack each
      requests_.push_back(encode_request(id, "run", body));
  }

  /// Requests answered in that time, per second.
  double run_for(milliseconds duration) {
    for (std::size_t id = 0; id < in_flight; ++id)
      send(id);
    auto begin = clock::now(), now = begin;
    std::uint64_t answered = 0;
    for (; now < begin + duration; now = clock::now())
      for (std::size_t i = 0; i < in_flight; ++i, ++answered)
        send(receive());
    double rate = static_cast<double>(answered) / ms_between(begin, now) * 1000;
    for (std::size_t i = 0; i < in_flight; ++i)
      receive();
    return rate;
  }

private:
  void send(std::size_t id) {
    socket_.send(zmq::str_buffer("BERTH/1"), zmq::send_flags::sndmore);
    socket_.send(zmq::buffer(requests_[id]), zmq::send_flags::none);
  }

  /// The id of the next reply.
  std::size_t receive() {
    if (!socket_.recv(frame_, zmq::recv_flags::dontwait)) {
      if (!wait_readable(socket_, milliseconds{10'000}))
        throw failure{"no reply within 10 s"};
      if (!socket_.recv(frame_, zmq::recv_flags::dontwait))
        throw failure{"a reply broke off"};
    }
    while (frame_.more())
      if (!socket_.recv(frame_, zmq::recv_flags::dontwait))
        throw failure{"a reply broke off"};
    const auto* data = frame_.data<unsigned char>();
    if (frame_.size() < good_reply.size() || std::memcmp(data, good_reply.data(), id_at) != 0
        || std::memcmp(data + id_at + 1, good_reply.data() + id_at + 1,
                       good_reply.size() - id_at - 1)
               != 0
        || data[id_at] >= in_flight)
      throw failure{
          "a reply is not ok: "
          + json::from_msgpack(data, data + frame_.size(), true, false).dump().substr(0, 300)};
    return data[id_at];
  }

  zmq::socket_t socket_;
  std::vector<std::vector<std::uint8_t>> requests_;
  zmq::message_t frame_;
};

} // namespace

void measure_own_path(bench_context& context) {
  server running = context.start_server({{"kind", "instant"}, {"require", json::array()}});
  running.settle();
  const json body = program("python", "print(1)");
  client agent = running.connect();
  samples times;
  for (int i = 0, rounds = context.choose(22'000, 6'000); i < rounds; ++i) {
    auto begin = clock::now();
    auto got = agent.call<outcome>("run", body);
    if (got.state != job_state::exited)
      throw failure{"an instant job ended as " + std::string{name_of(got.state)}};
    if (i >= 1'000)
      times.add(ms_since(begin));
  }
  lean_client many{context.sockets, running.endpoint(), body};
  many.run_for(milliseconds{1'000});
  double rate = many.run_for(context.choose(milliseconds{10'000}, milliseconds{2'000}));
  report& out = context.results;
  out.figure("p50_ms", "own path over ipc, p50", times.p50(), "ms", at_most(0.3), times.text());
  out.figure("requests_per_second", "own path, 64 in flight", rate, "/s", at_least(50'000));
  out.distribution("berth_ms", times);
  context.stop_server(running);
}

} // namespace berth::bench
