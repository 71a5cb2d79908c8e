// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/reactor.hpp"
#include "messages/fd.hpp"

#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

/// QMP, the language of QEMU's monitor: one JSON object a line. QEMU runs what is hostile and may
/// have been taken over by it, so what it says is bounded and believed only about itself.
namespace berth::machines::qmp {

using json = nlohmann::json;

/// The longest line taken.
inline constexpr std::size_t line_bytes_max = 1 << 20;
/// How deep a line's values may be nested.
inline constexpr int depth_max = 32;
/// Commands that may wait for their answers.
inline constexpr std::size_t commands_max = 64;

/// What QEMU says first.
struct greeting {};
struct event {
  std::string name;
  json data;
};
/// The answer to a command: a value, or why it failed.
struct answer {
  std::uint64_t id = 0;
  json value;
  std::string error;
};

/// Reads one line; nothing when it is none of these.
std::optional<std::variant<greeting, event, answer>> parse(std::string_view line);
/// A number in an answer's value; nothing when there is none.
std::optional<std::uint64_t> number_in(const json& value, const char* member);
/// A command as it is sent, its end of line included.
std::string command_line(std::string_view name, const json& arguments, std::uint64_t id);

/// Cuts a stream into lines.
class line_cutter {
public:
  void push(std::string_view data) { buffer_.append(data); }
  /// The next line, without its end; nothing when more is needed.
  std::optional<std::string> next();
  /// Whether a line is longer than may be.
  bool broken() const { return broken_; }

private:
  std::string buffer_;
  std::size_t looked_at_ = 0;
  bool broken_ = false;
};

/// A conversation with one QEMU over a connected stream socket. Everything happens on the reactor's
/// thread. Commands are answered in order; one that is not answered in time, or anything that is no
/// QMP, ends the conversation, and every open command with it.
class client : public std::enable_shared_from_this<client> {
public:
  using answer_handler = std::function<void(const answer&)>;

  struct handlers {
    std::function<void(const event&)> on_event;
    /// The conversation is over, and why. Said once, after the open commands were answered with it.
    std::function<void(const std::string& why)> on_end;
  };

  client(reactor& loop, owned_fd socket)
    : loop_(loop)
    , socket_(std::move(socket)) {}

  /// Begins; the first command, which makes QEMU take others, is sent here.
  void open(handlers told);
  /// Sends a command; `on_answer` is called once. A descriptor goes with it.
  void ask(std::string_view name, const json& arguments, std::chrono::milliseconds within,
           answer_handler on_answer, int fd = -1);
  /// Ends without telling anybody.
  void close();
  bool closed() const { return !socket_; }

private:
  struct asked {
    std::uint64_t id = 0;
    answer_handler on_answer;
    reactor::token timer = 0;
  };
  struct outgoing {
    std::string text;
    std::size_t sent = 0;
    owned_fd fd;
  };

  void on_events(std::uint32_t events);
  void read_some();
  void take(const std::string& line);
  bool flush();
  void end(const std::string& why);

  reactor& loop_;
  owned_fd socket_;
  handlers told_;
  line_cutter cutter_;
  reactor::token watch_ = 0;
  bool want_out_ = false;
  std::uint64_t next_id_ = 1;
  std::deque<asked> open_;
  std::deque<outgoing> queue_;
};

} // namespace berth::machines::qmp
