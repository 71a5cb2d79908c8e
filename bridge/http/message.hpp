// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// A request and its reply as a facade sees them: no sockets, no framing.
namespace berth::http {

/// By which of the server's listeners a request came in. All contracts are served by both; a route
/// may answer differently where their clients expect different things.
enum class entrance : std::uint8_t { main, terraphim };

/// What a client asked.
struct request {
  entrance door = entrance::main;
  /// Upper case, for example "GET".
  std::string method;
  /// Path and query as they came.
  std::string target;
  /// Segments of the path, decoded; a trailing slash leaves no segment.
  std::vector<std::string> path;
  /// Members of the query, decoded; the last of equal names wins.
  std::map<std::string, std::string> query;
  /// Header fields by lower-case name; equal names are joined with ", ".
  std::map<std::string, std::string> headers;
  /// What stood in place of the pattern's {names}.
  std::map<std::string, std::string> params;
  std::string body;

  /// A member of the query; empty when it is not there.
  std::string_view query_of(const std::string& name) const;
  /// A header field by lower-case name; empty when it is not there.
  std::string_view header(const std::string& name) const;
  /// A parameter of the pattern; empty when it is not there.
  const std::string& param(const std::string& name) const;
};

/// A part of a body, or its end, or a reason why the rest will not come.
struct body_part {
  std::string data;
  bool last = false;
  bool failed = false;
};

/// A body that is made while it is sent: `next` is called when the part before it is on its way.
using body_source = std::function<void(std::function<void(body_part)>)>;

/// What a client is answered.
struct reply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers = {};
  /// When set, follows `body`; the reply is sent in chunks.
  body_source more = nullptr;
};

/// Answers one request, once. Lives on the server's thread. When the last copy is gone without an
/// answer, the client is told that the server failed.
class responder {
public:
  /// `watch` is told what to call when the client is gone; without it nobody watches.
  explicit responder(std::function<void(reply)> send,
                     std::function<void(std::function<void()>)> watch = nullptr);

  void operator()(reply answer) const;

  /// Calls `gone`, at most once, when the client closes the connection before it has the whole
  /// answer. What is asked for a client that gives up need not be done.
  void when_gone(std::function<void()> gone) const;

private:
  struct state;
  std::shared_ptr<state> state_;
};

/// Serves a request. Runs on the server's thread and must not wait.
using handler = std::function<void(const request&, responder)>;

/// The facade's end of a WebSocket. Lives on the server's thread.
class channel {
public:
  virtual ~channel() = default;

  /// Queues a text message. Nothing happens once the socket is closed.
  virtual void send(std::string text) = 0;
  /// Bytes that wait for a slow reader.
  virtual std::size_t queued_bytes() const = 0;
  /// Closes after what is queued. `code` is of RFC 6455.
  virtual void close(std::uint16_t code, std::string reason) = 0;
};

/// What a facade does with a WebSocket. Called on the server's thread, never after on_closed().
class socket {
public:
  virtual ~socket() = default;

  /// A whole text message arrived; it is UTF-8.
  virtual void on_text(std::string text) = 0;
  /// A whole binary message arrived and was dropped.
  virtual void on_binary() = 0;
  /// What was queued has become little enough to go on.
  virtual void on_drained() = 0;
  /// The connection is gone.
  virtual void on_closed() = 0;
};

/// Makes what serves a WebSocket that was asked for. The channel outlives the socket's calls.
using socket_factory =
    std::function<std::shared_ptr<socket>(const request&, std::shared_ptr<channel>)>;

/// Above this many queued bytes a socket should add nothing; on_drained() comes below half of it.
inline constexpr std::size_t queued_bytes_high = 1024 * 1024;

/// `%41` and, in a query, `+` undone; nothing when an escape is broken.
bool percent_decode(std::string_view text, bool plus_is_space, std::string& to);

/// Splits a target of a request line into path and query. False when it is not one.
bool parse_target(std::string_view target, request& to);

/// Whether one of the tokens equals what was presented. Takes the same time wherever they differ.
bool token_matches(std::string_view presented, const std::vector<std::string>& tokens);

} // namespace berth::http
