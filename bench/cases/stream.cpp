// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"

#include <algorithm>
#include <cstring>
#include <span>

namespace berth::bench {

namespace {

/// Block `n` of the output: n in 8 bytes, little-endian, then a pattern whose period is prime, so
/// that no byte can take another's place unseen.
constexpr std::size_t block = 65536;
constexpr std::size_t period = 251;

constexpr const char* writer = R"(import sys
blocks = int(sys.argv[1])
block = bytearray(bytes(range(251)) * 262)[:65536]
write = sys.stdout.buffer.write
for n in range(blocks):
    block[0:8] = n.to_bytes(8, "little")
    write(block)
)";

/// Checks that bytes continue the output where it was.
class pattern_check {
public:
  pattern_check()
    : tail_(block) {
    for (std::size_t i = 0; i < block; ++i)
      tail_[i] = static_cast<char>(i % period);
  }

  std::uint64_t next() const { return next_; }

  /// Takes bytes that begin at `offset`, which is at most next(); what is known is skipped.
  void take(std::uint64_t offset, std::span<const char> data) {
    std::uint64_t known = next_ - offset;
    if (known >= data.size())
      return;
    for (data = data.subspan(known); !data.empty();) {
      std::size_t in_block = next_ % block;
      std::size_t size = std::min(data.size(), block - in_block);
      check(in_block, data.first(size));
      next_ += size;
      data = data.subspan(size);
    }
  }

private:
  void check(std::size_t in_block, std::span<const char> part) const {
    std::uint64_t number = next_ / block;
    std::size_t i = 0;
    for (; i < part.size() && in_block + i < 8; ++i)
      if (part[i] != static_cast<char>(number >> (8 * (in_block + i))))
        throw failure{"wrong byte at " + std::to_string(next_ + i)};
    if (i < part.size()
        && std::memcmp(part.data() + i, tail_.data() + in_block + i, part.size() - i) != 0)
      throw failure{"wrong byte after " + std::to_string(next_ + i)};
  }

  std::vector<char> tail_;
  std::uint64_t next_ = 0;
};

/// Follows one job's output: events as they come, and `read` for what they missed.
class follower {
public:
  follower(bench_context& context, server& running)
    : events_(context.sockets, zmq::socket_type::sub)
    , reader_(running.connect()) {
    events_.set(zmq::sockopt::linger, 0);
    events_.set(zmq::sockopt::subscribe, "job.");
    events_.connect(running.events());
  }

  /// Proves the subscription by the events of a small job.
  void join() {
    for (int tries = 0; tries < 50; ++tries) {
      reader_.call<outcome>("run", program("bash", "echo 1"));
      if (!wait_readable(events_, milliseconds{100}))
        continue;
      zmq::message_t frame;
      while (wait_readable(events_, milliseconds{300}))
        (void)events_.recv(frame, zmq::recv_flags::dontwait);
      return;
    }
    throw failure{"no event reaches the subscriber"};
  }

  void follow(const std::string& job, std::uint64_t size) {
    const std::string topic = "job." + job + ".stdout";
    while (check_.next() < size) {
      // Silence: the last events were missed, or the program is slow; `read` knows.
      if (!wait_readable(events_, milliseconds{500})) {
        fill(job, check_.next() + 1);
        continue;
      }
      zmq::message_t name, body;
      if (!events_.recv(name, zmq::recv_flags::dontwait) || !name.more()
          || !events_.recv(body, zmq::recv_flags::dontwait))
        throw failure{"an event broke off"};
      if (name.to_string_view() != topic)
        continue;
      auto event = decode<output_event>({body.data<char>(), body.size()});
      if (!event)
        throw failure{"event: " + event.why().text()};
      if (event->offset > check_.next()) {
        ++gaps_;
        fill(job, event->offset);
      }
      check_.take(event->offset, event->data);
    }
    finish(job, size);
  }

  std::uint64_t gaps() const { return gaps_; }
  std::uint64_t filled() const { return filled_; }

private:
  /// Reads until byte `until` is known, or nothing more comes for a while.
  void fill(const std::string& job, std::uint64_t until) {
    while (check_.next() < until) {
      auto slice = reader_.call<output_slice>(
          "read", {{"job", job}, {"stdout_offset", check_.next()}, {"wait_ms", 1'000}});
      if (slice.stdout_offset > check_.next())
        throw failure{"read lost bytes from " + std::to_string(check_.next())};
      if (slice.stdout_data.empty() && slice.ended)
        throw failure{"the job ended after " + std::to_string(check_.next())
                      + " bytes: " + slice.ended->detail};
      std::uint64_t before = check_.next();
      check_.take(slice.stdout_offset, slice.stdout_data);
      filled_ += check_.next() - before;
    }
  }

  void finish(const std::string& job, std::uint64_t size) {
    for (auto until = clock::now() + milliseconds{30'000}; clock::now() < until;) {
      auto slice = reader_.call<output_slice>(
          "read", {{"job", job}, {"stdout_offset", size}, {"wait_ms", 5'000}});
      if (!slice.ended)
        continue;
      if (slice.ended->state != job_state::exited || slice.ended->stdout_bytes != size)
        throw failure{"the job ended as " + std::string{name_of(slice.ended->state)} + " with "
                      + std::to_string(slice.ended->stdout_bytes) + " bytes"};
      return;
    }
    throw failure{"the job did not end after its output"};
  }

  zmq::socket_t events_;
  client reader_;
  pattern_check check_;
  std::uint64_t gaps_ = 0;
  std::uint64_t filled_ = 0;
};

} // namespace

void measure_stream(bench_context& context) {
  const std::uint64_t size = context.choose<std::uint64_t>(1024, 128) * 1024 * 1024;
  server running = context.start_server();
  running.settle();
  follower subscriber{context, running};
  subscriber.join();
  client agent = running.connect();
  json body = program("python", writer);
  body["args"] = {std::to_string(size / block)};
  body["output_bytes"] = size;
  body["timeout_ms"] = 600'000;
  auto begin = clock::now();
  auto job = agent.call<accepted>("submit", body);
  subscriber.follow(job.job, size);
  double seconds = ms_since(begin) / 1000;
  constexpr double mib = 1024 * 1024;
  report& out = context.results;
  out.figure("checked_mib", "output to a subscriber, in order and right",
             static_cast<double>(size) / mib, "MiB", at_least(static_cast<double>(size) / mib));
  out.figure("mib_per_second", "  rate, every byte checked",
             static_cast<double>(size) / mib / seconds, "MiB/s");
  out.figure("gaps_filled", "  gaps filled by read", static_cast<double>(subscriber.gaps()), "");
  out.figure("filled_mib", "  output that came by read",
             static_cast<double>(subscriber.filled()) / mib, "MiB");
  context.stop_server(running);
}

} // namespace berth::bench
