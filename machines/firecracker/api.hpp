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
#include <string>
#include <string_view>

/// Firecracker's API: HTTP/1.1 with JSON over a unix socket. Firecracker runs what is hostile and
/// may have been taken over by it, so what it says is bounded and believed only about itself.
namespace berth::machines::firecracker {

using json = nlohmann::json;

/// The longest head of an answer, and the longest body.
inline constexpr std::size_t head_bytes_max = 8 * 1024;
inline constexpr std::size_t body_bytes_max = 1 << 20;
/// How deep a body's values may be nested.
inline constexpr int depth_max = 32;
/// The longest text of a refusal that is kept.
inline constexpr std::size_t fault_bytes_max = 1024;
/// Requests that may wait for their answers.
inline constexpr std::size_t requests_max = 32;

/// Puts one answer together from the pieces of a stream.
class answer_reader {
public:
  enum class state { more, whole, broken };

  state push(std::string_view data);
  // Of a whole one.
  int status() const { return status_; }
  const std::string& body() const { return body_; }
  /// Why it is broken.
  const std::string& why() const { return why_; }

private:
  state refuse(const char* why);
  bool read_head(std::string_view head);
  bool read_field(std::string_view line);

  std::string head_;
  std::string body_;
  std::string why_;
  std::optional<std::size_t> length_;
  int status_ = 0;
  bool in_body_ = false;
};

struct request {
  std::string method;
  std::string path;
  /// None is sent when null.
  json body;
};

/// How much may pass: `size` at once, and as much again in `refill_ms`.
struct token_bucket {
  std::uint64_t size = 0;
  std::uint64_t refill_ms = 0;
};
struct rate_limit {
  std::optional<token_bucket> bandwidth;
  std::optional<token_bucket> operations;
};
struct drive {
  std::string id;
  std::string path;
  bool root = false;
  bool read_only = false;
  std::optional<rate_limit> limit;
};
enum class memory_backend { file, uffd };
struct saved_machine {
  std::string state_path;
  memory_backend backend = memory_backend::file;
  /// The file of memory, or the socket of who answers page faults.
  std::string memory_path;
  bool resume = false;
  /// Where the vsock's socket is now; empty: where it was.
  std::string vsock_path;
};

// The calls a machine's life is made of, in the order in which they are allowed.
request put_metrics(const std::string& path);
request put_machine_config(unsigned vcpus, std::uint64_t memory_mib);
request put_boot_source(const std::string& kernel, const std::string& initrd,
                        const std::string& arguments);
request put_drive(const drive& what);
request put_vsock(std::uint32_t guest_cid, const std::string& path);
request put_entropy(const std::optional<rate_limit>& limit);
request start_instance();
request flush_metrics();
request pause_vm();
request resume_vm();
/// Of a paused one; all of its memory.
request create_snapshot(const std::string& state_path, const std::string& memory_path);
/// Only a process that nothing but its logger and metrics was told takes it.
request load_snapshot(const saved_machine& from);
/// `id`, `state`, `vmm_version`.
request describe_instance();

/// As it is sent.
std::string text_of(const request& what);

/// What became of a request: done, with a value where one was asked for, or why not.
struct reply {
  /// 0: no answer came.
  int status = 0;
  json value;
  std::string error;
  bool ok() const { return error.empty(); }
};

/// What an answer says.
reply read_reply(int status, std::string_view body);

/// A conversation with one Firecracker over a connected stream socket. Everything happens on the
/// reactor's thread. One request is under way at a time, the others wait; a refused one refuses
/// none of those behind it. One that is not answered in time, or anything that is no answer, ends
/// the conversation, and every open request with it.
class client : public std::enable_shared_from_this<client> {
public:
  using reply_handler = std::function<void(const reply&)>;
  using end_handler = std::function<void(const std::string& why)>;

  client(reactor& loop, owned_fd socket)
    : loop_(loop)
    , socket_(std::move(socket)) {}

  /// Begins. `on_end` is called once, when it is over, after the open requests were answered.
  void open(end_handler on_end);
  /// `on_reply` is called once. Time spent waiting for others counts.
  void ask(const request& what, std::chrono::milliseconds within, reply_handler on_reply);
  /// Ends without telling anybody.
  void close();
  bool closed() const { return !socket_; }

private:
  struct asked {
    std::string text;
    std::size_t sent = 0;
    reply_handler on_reply;
    reactor::token timer = 0;
  };

  void on_events(std::uint32_t events);
  void read_some();
  void flush();
  void end(const std::string& why);

  reactor& loop_;
  owned_fd socket_;
  end_handler on_end_;
  answer_reader reader_;
  reactor::token watch_ = 0;
  bool want_out_ = false;
  std::deque<asked> open_;
};

/// Connects to the API's socket, without waiting; none, and why.
owned_fd connect_api(const std::string& path, std::string& error);

} // namespace berth::machines::firecracker
