// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/server.hpp"

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>

/// What runs on the server's thread. Only the server's own sources include this.
namespace berth::http {

namespace net = boost::asio;
namespace beast = boost::beast;
using tcp = net::ip::tcp;

/// A connection as the server sees it.
class guest_at_door {
public:
  virtual ~guest_at_door() = default;

  /// Ends the connection at once.
  virtual void close_now() = 0;
};

/// What all connections share. Belongs to the server's thread once it runs.
struct door {
  server_options options;
  router routes;
  std::unordered_map<guest_at_door*, std::weak_ptr<guest_at_door>> guests;
  bool stopping = false;

  /// Closes every connection and lets none be answered from now on.
  void close_all();
};

/// One HTTP connection: one request at a time, in order, until it is closed or becomes a WebSocket.
class connection : public guest_at_door, public std::enable_shared_from_this<connection> {
public:
  connection(tcp::socket socket, std::shared_ptr<door> shared, entrance by);
  ~connection() override;

  /// Serves requests.
  void run();
  /// Says that there is no place, and closes.
  void refuse();
  void close_now() override;

private:
  using parser = beast::http::request_parser<beast::http::string_body>;

  void await_request();
  void read_header();
  void on_header(beast::error_code why);
  void judge_header();
  void read_body();
  void on_read_error(beast::error_code why);
  void serve();
  void upgrade();
  /// Answers without having read the body.
  void refuse_request(reply answer);

  template <class Response>
  void set_fields(Response& to, const reply& from) const;
  void send(reply answer);
  void send_stream(reply answer);
  void pull(body_source source);
  void on_part(body_source source, body_part part);
  void on_sent(beast::error_code why);
  /// Calls `gone` when the client closes before its answer is sent.
  void watch(std::function<void()> gone);
  void await_gone();
  void on_readable();
  void linger();
  void discard();

  beast::tcp_stream stream_;
  std::shared_ptr<door> door_;
  entrance entrance_;
  beast::flat_buffer buffer_;
  std::optional<parser> parser_;
  request request_;
  match match_;
  bool close_after_ = false;
  bool head_ = false;
  unsigned version_ = 11;
  std::shared_ptr<void> sending_;
  std::function<void()> gone_;
  bool watching_ = false;
  std::size_t discarded_ = 0;
};

/// Turns an upgrade request into a WebSocket and serves it.
void serve_websocket(beast::tcp_stream stream, std::shared_ptr<door> shared,
                     beast::http::request<beast::http::string_body> asked, request what,
                     const socket_factory& make);

/// Fields that every reply carries.
template <class Fields>
void set_common_fields(Fields& to) {
  to.set(beast::http::field::server, "berth");
  to.set(beast::http::field::access_control_allow_origin, "*");
}

} // namespace berth::http
