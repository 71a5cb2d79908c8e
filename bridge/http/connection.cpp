// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/connection.hpp"

#include "config/log.hpp"

#include <boost/asio/write.hpp>
#include <boost/beast/http/chunk_encode.hpp>
#include <boost/beast/version.hpp>
#include <boost/beast/websocket/rfc6455.hpp>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>

namespace berth::http {

namespace {

using beast::http::field;

/// What is read of a body that nobody wants, so that its sender sees the answer before the end.
constexpr std::size_t discarded_bytes_max = 64 * limits::mib;
constexpr std::chrono::seconds linger_time{2};
/// A body up to this size is read even when the answer is known, to keep the connection.
constexpr std::uint64_t small_body_bytes = 64 * limits::kib;

std::string http_date() {
  std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 64> text{};
  std::size_t size = std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return {text.data(), size};
}

std::string lower(std::string_view text) {
  std::string made{text};
  std::transform(made.begin(), made.end(), made.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  });
  return made;
}

std::string text_of(beast::string_view text) {
  return {text.data(), text.size()};
}

template <class Message>
request to_request(const Message& from) {
  request made;
  made.method = text_of(from.method_string());
  for (const auto& f : from) {
    auto& value = made.headers[lower(text_of(f.name_string()))];
    value += (value.empty() ? "" : ", ") + text_of(f.value());
  }
  return made;
}

std::string_view bearer_of(const request& what, bool upgrade) {
  std::string_view value = what.header("authorization");
  if (value.size() > 7 && lower(value.substr(0, 7)) == "bearer ")
    return value.substr(7);
  // A browser cannot set a header on a WebSocket.
  return upgrade ? what.query_of("access_token") : std::string_view{};
}

reply preflight(const request& what) {
  std::string wanted{what.header("access-control-request-headers")};
  return {
      .status = 204,
      .content_type = "",
      .headers = {{"Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"},
                  {"Access-Control-Allow-Headers",
                   wanted.empty() ? "Authorization, Content-Type, Accept" : wanted},
                  {"Access-Control-Max-Age", "600"}}};
}

} // namespace

void door::close_all() {
  stopping = true;
  auto all = guests;
  for (auto& [unused, weak] : all)
    if (auto one = weak.lock())
      one->close_now();
}

connection::connection(tcp::socket socket, std::shared_ptr<door> shared, entrance by)
  : stream_(std::move(socket))
  , door_(std::move(shared))
  , entrance_(by) {}

connection::~connection() {
  door_->guests.erase(this);
}

void connection::run() {
  door_->guests[this] = weak_from_this();
  beast::error_code ignored;
  stream_.socket().set_option(tcp::no_delay{true}, ignored);
  await_request();
}

void connection::refuse() {
  door_->guests[this] = weak_from_this();
  close_after_ = true;
  reply answer = error_reply(503, "no_capacity", "the server has all the connections it takes");
  answer.headers.emplace_back("Retry-After", "1");
  send(std::move(answer));
}

void connection::close_now() {
  beast::error_code ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
  stream_.close();
}

void connection::await_request() {
  parser_.emplace();
  parser_->header_limit(door_->options.header_bytes_max);
  parser_->body_limit(door_->options.body_bytes_max);
  close_after_ = false;
  head_ = false;
  version_ = 11;
  if (buffer_.size() > 0)
    return read_header();
  stream_.expires_after(door_->options.idle_timeout);
  stream_.async_read_some(buffer_.prepare(8192),
                          [self = shared_from_this()](beast::error_code why, std::size_t count) {
                            if (why)
                              return;
                            self->buffer_.commit(count);
                            self->read_header();
                          });
}

void connection::read_header() {
  stream_.expires_after(door_->options.header_timeout);
  beast::http::async_read_header(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](beast::error_code why, std::size_t) { self->on_header(why); });
}

void connection::on_read_error(beast::error_code why) {
  using beast::http::error;
  bool ours = why.category() == beast::http::make_error_code(error::bad_field).category();
  if (!ours || why == error::end_of_stream || why == error::partial_message)
    return;
  version_ = 11;
  if (why == error::header_limit || why == error::buffer_overflow)
    refuse_request(error_reply(431, "too_large",
                               "the header is larger than "
                                   + std::to_string(door_->options.header_bytes_max) + " bytes"));
  else if (why == error::body_limit)
    refuse_request(error_reply(ec::too_large, "the body is larger than "
                                                  + std::to_string(door_->options.body_bytes_max)
                                                  + " bytes"));
  else
    refuse_request(error_reply(ec::malformed, "not HTTP: " + why.message()));
}

void connection::on_header(beast::error_code why) {
  if (why)
    return on_read_error(why);
  const auto& header = parser_->get();
  version_ = header.version();
  head_ = header.method() == beast::http::verb::head;
  close_after_ = !header.keep_alive();
  std::string coding = lower(text_of(header[field::transfer_encoding]));
  bool coded = header.count(field::transfer_encoding) > 0;
  if (header.count(field::host) > 1 || (version_ == 11 && header.count(field::host) == 0))
    return refuse_request(error_reply(ec::malformed, "Host: must be there once"));
  if (coded && (version_ != 11 || header.count(field::content_length) > 0))
    return refuse_request(error_reply(
        ec::malformed, "Transfer-Encoding: must not come with Content-Length or HTTP/1.0"));
  if (coded && (coding != "chunked" || header.count(field::transfer_encoding) > 1))
    return refuse_request(error_reply(501, "unsupported", "Transfer-Encoding: only chunked"));
  request_ = to_request(header);
  request_.door = entrance_;
  if (!parse_target(text_of(header.target()), request_) && request_.method != "OPTIONS")
    return refuse_request(error_reply(ec::malformed, "the target is not a path"));
  judge_header();
}

void connection::judge_header() {
  match_ = door_->routes.find(request_.method, request_.path);
  bool served = match_.serve != nullptr || match_.upgrade != nullptr;
  bool upgrade = match_.upgrade != nullptr;
  const auto& tokens = door_->options.tokens;
  bool guarded = !tokens.empty() && request_.method != "OPTIONS"
                 && (!served || match_.guard == access::guarded);
  std::optional<reply> known;
  if (guarded && !token_matches(bearer_of(request_, upgrade), tokens)) {
    known = error_reply(ec::unauthorized, "a bearer token is needed");
    known->headers.emplace_back("WWW-Authenticate", "Bearer");
  } else if (request_.method == "OPTIONS") {
    known = preflight(request_);
  } else if (match_.allow.empty()) {
    known = error_reply(ec::not_found, "no such path: " + to_utf8(request_.target.substr(0, 200)));
  } else if (!served) {
    known = error_reply(405, "unsupported", "this path takes " + match_.allow);
    known->headers.emplace_back("Allow", match_.allow);
  }
  std::string expected = lower(request_.header("expect"));
  if (!known && !expected.empty() && expected != "100-continue")
    known = error_reply(417, "unsupported", "Expect: only 100-continue");
  if (known) {
    auto length = parser_->content_length_remaining();
    bool small = parser_->is_done() || (length && *length <= small_body_bytes);
    if (!small || !expected.empty())
      return refuse_request(std::move(*known));
    match_ = {};
    sending_ = std::make_shared<handler>(
        [answer = std::move(*known)](const request&, const responder& done) { done(answer); });
    match_.serve = static_cast<const handler*>(sending_.get());
  }
  if (upgrade && !known)
    return this->upgrade();
  if (expected.empty() || parser_->is_done())
    return read_body();
  static constexpr std::string_view go_on = "HTTP/1.1 100 Continue\r\n\r\n";
  stream_.expires_after(door_->options.write_timeout);
  net::async_write(stream_, net::buffer(go_on),
                   [self = shared_from_this()](beast::error_code why, std::size_t) {
                     if (!why)
                       self->read_body();
                   });
}

void connection::read_body() {
  if (parser_->is_done())
    return serve();
  stream_.expires_after(door_->options.body_timeout);
  beast::http::async_read(stream_, buffer_, *parser_,
                          [self = shared_from_this()](beast::error_code why, std::size_t) {
                            if (why)
                              return self->on_read_error(why);
                            self->serve();
                          });
}

void connection::serve() {
  request_.body = std::move(parser_->get().body());
  request_.params = std::move(match_.params);
  // The stream has no operation under way: its timer must not fire.
  stream_.expires_never();
  responder done{[self = shared_from_this()](reply answer) { self->send(std::move(answer)); },
                 [weak = weak_from_this()](std::function<void()> gone) {
                   if (auto self = weak.lock())
                     self->watch(std::move(gone));
                 }};
  auto keep = sending_;
  try {
    (*match_.serve)(request_, done);
  } catch (const std::exception& failure) {
    log::error("http", "handler failed", {{"target", request_.target}, {"why", failure.what()}});
    done(error_reply(ec::internal, "the server failed on this request"));
  }
}

void connection::upgrade() {
  if (!beast::websocket::is_upgrade(parser_->get())) {
    reply answer = error_reply(426, "unsupported", "this path is a WebSocket");
    answer.headers.emplace_back("Upgrade", "websocket");
    return refuse_request(std::move(answer));
  }
  if (buffer_.size() > 0)
    return refuse_request(error_reply(ec::malformed, "a WebSocket's client must wait for the 101"));
  request_.params = std::move(match_.params);
  serve_websocket(std::move(stream_), door_, parser_->release(), std::move(request_),
                  *match_.upgrade);
}

void connection::refuse_request(reply answer) {
  close_after_ = true;
  send(std::move(answer));
}

template <class Response>
void connection::set_fields(Response& to, const reply& from) const {
  set_common_fields(to);
  to.set(field::date, http_date());
  to.set(field::cache_control, "no-store");
  to.set("X-Content-Type-Options", "nosniff");
  if (!from.content_type.empty())
    to.set(field::content_type, from.content_type);
  for (const auto& [name, value] : from.headers)
    to.set(name, value);
  to.keep_alive(!close_after_);
}

void connection::send(reply answer) {
  if (door_->stopping)
    return;
  if (answer.more)
    return send_stream(std::move(answer));
  auto status = static_cast<beast::http::status>(answer.status);
  bool bodiless = answer.status == 204 || answer.status == 304;
  stream_.expires_after(door_->options.write_timeout);
  auto after = [self = shared_from_this()](beast::error_code why, std::size_t) {
    self->on_sent(why);
  };
  if (head_ || bodiless) {
    auto response =
        std::make_shared<beast::http::response<beast::http::empty_body>>(status, version_);
    set_fields(*response, answer);
    if (!bodiless)
      response->content_length(answer.body.size());
    sending_ = response;
    return beast::http::async_write(stream_, *response, after);
  }
  auto response =
      std::make_shared<beast::http::response<beast::http::string_body>>(status, version_);
  set_fields(*response, answer);
  response->body() = std::move(answer.body);
  response->content_length(response->body().size());
  sending_ = response;
  beast::http::async_write(stream_, *response, after);
}

void connection::send_stream(reply answer) {
  using response_type = beast::http::response<beast::http::empty_body>;
  struct outgoing {
    response_type response;
    beast::http::response_serializer<beast::http::empty_body> serializer{response};
  };
  bool chunked = version_ == 11;
  close_after_ = close_after_ || !chunked;
  auto out = std::make_shared<outgoing>();
  out->response.result(static_cast<beast::http::status>(answer.status));
  out->response.version(version_);
  set_fields(out->response, answer);
  if (chunked)
    out->response.chunked(true);
  sending_ = out;
  stream_.expires_after(door_->options.write_timeout);
  beast::http::async_write_header(stream_, out->serializer,
                                  [self = shared_from_this(), answer = std::move(answer)](
                                      beast::error_code why, std::size_t) mutable {
                                    if (why)
                                      return;
                                    if (self->head_)
                                      return self->on_sent({});
                                    auto source = std::move(answer.more);
                                    if (answer.body.empty())
                                      return self->pull(std::move(source));
                                    self->on_part(std::move(source),
                                                  {.data = std::move(answer.body)});
                                  });
}

void connection::pull(body_source source) {
  stream_.expires_never();
  auto next = source;
  next([self = shared_from_this(), source = std::move(source)](body_part part) mutable {
    if (!self->door_->stopping)
      self->on_part(std::move(source), std::move(part));
  });
}

void connection::on_part(body_source source, body_part part) {
  // An end without its mark is the only way left to say that the rest failed.
  if (part.failed)
    return close_now();
  std::string framed;
  if (version_ == 11 && !part.data.empty()) {
    std::array<char, 20> size{};
    int digits = std::snprintf(size.data(), size.size(), "%zx\r\n", part.data.size());
    framed.assign(size.data(), static_cast<std::size_t>(digits));
    framed += part.data;
    framed += "\r\n";
  } else {
    framed = std::move(part.data);
  }
  if (part.last && version_ == 11)
    framed += "0\r\n\r\n";
  auto bytes_out = std::make_shared<std::string>(std::move(framed));
  sending_ = bytes_out;
  stream_.expires_after(door_->options.write_timeout);
  net::async_write(stream_, net::buffer(*bytes_out),
                   [self = shared_from_this(), source = std::move(source),
                    last = part.last](beast::error_code why, std::size_t) mutable {
                     if (why)
                       return;
                     if (last)
                       return self->on_sent({});
                     self->pull(std::move(source));
                   });
}

void connection::watch(std::function<void()> gone) {
  gone_ = std::move(gone);
  if (!watching_)
    await_gone();
}

void connection::await_gone() {
  watching_ = true;
  // Not what keeps the connection: it may end while nothing ever comes.
  stream_.socket().async_wait(tcp::socket::wait_read,
                              [weak = weak_from_this()](beast::error_code why) {
                                auto self = weak.lock();
                                if (self && !why)
                                  self->on_readable();
                              });
}

void connection::on_readable() {
  watching_ = false;
  if (!gone_)
    return;
  char next = 0;
  ssize_t there = ::recv(stream_.socket().native_handle(), &next, 1, MSG_PEEK | MSG_DONTWAIT);
  // Another request waits: what comes after it is not seen until that one is read.
  if (there > 0)
    return;
  if (there < 0 && (errno == EAGAIN || errno == EINTR))
    return await_gone();
  auto gone = std::exchange(gone_, nullptr);
  close_now();
  gone();
}

void connection::on_sent(beast::error_code why) {
  sending_.reset();
  gone_ = nullptr;
  if (why)
    return;
  if (close_after_)
    return linger();
  await_request();
}

void connection::linger() {
  beast::error_code ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
  stream_.expires_after(linger_time);
  buffer_.clear();
  discard();
}

void connection::discard() {
  stream_.async_read_some(buffer_.prepare(64 * limits::kib),
                          [self = shared_from_this()](beast::error_code why, std::size_t count) {
                            self->discarded_ += count;
                            if (!why && self->discarded_ < discarded_bytes_max)
                              self->discard();
                          });
}

} // namespace berth::http
