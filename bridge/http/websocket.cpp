// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/connection.hpp"
#include "config/log.hpp"

#include <boost/beast/websocket.hpp>

#include <deque>

namespace berth::http {

namespace {

namespace websocket = beast::websocket;

/// One WebSocket: reads one message at a time, writes from a queue, and reads nothing while its
/// reader is too slow for what is queued.
class socket_connection : public guest_at_door,
                          public channel,
                          public std::enable_shared_from_this<socket_connection> {
public:
  socket_connection(beast::tcp_stream stream, std::shared_ptr<door> shared)
    : stream_(std::move(stream))
    , door_(std::move(shared)) {}

  ~socket_connection() override { door_->guests.erase(this); }

  void run(beast::http::request<beast::http::string_body> asked, request what,
           const socket_factory& make) {
    door_->guests[this] = weak_from_this();
    beast::get_lowest_layer(stream_).expires_never();
    stream_.set_option(
        websocket::stream_base::timeout{.handshake_timeout = door_->options.header_timeout,
                                        .idle_timeout = door_->options.socket_idle_timeout,
                                        .keep_alive_pings = true});
    stream_.set_option(websocket::stream_base::decorator(
        [](websocket::response_type& response) { set_common_fields(response); }));
    stream_.read_message_max(door_->options.socket_message_bytes_max);
    stream_.auto_fragment(false);
    auto kept = std::make_shared<beast::http::request<beast::http::string_body>>(std::move(asked));
    stream_.async_accept(*kept, [self = shared_from_this(), kept, what = std::move(what),
                                 make](beast::error_code why) {
      if (why)
        return;
      self->open_ = true;
      self->socket_ = make(what, self);
      self->read();
    });
  }

  void send(std::string text) override {
    if (!open_)
      return;
    queued_ += text.size();
    queue_.push_back(std::move(text));
    if (!writing_)
      write();
  }

  std::size_t queued_bytes() const override { return queued_; }

  void close(std::uint16_t code, std::string reason) override {
    closing_ = websocket::close_reason{static_cast<websocket::close_code>(code),
                                       beast::string_view{reason.data(), reason.size()}};
    if (!writing_)
      finish_close();
  }

  void close_now() override {
    beast::get_lowest_layer(stream_).close();
    gone();
  }

private:
  void read() {
    reading_ = true;
    stream_.async_read(buffer_, [self = shared_from_this()](beast::error_code why, std::size_t) {
      self->reading_ = false;
      if (why)
        return self->gone();
      self->on_message();
    });
  }

  void on_message() {
    if (!open_)
      return;
    try {
      if (stream_.got_text())
        socket_->on_text(beast::buffers_to_string(buffer_.data()));
      else
        socket_->on_binary();
    } catch (const std::exception& failure) {
      log::error("http", "socket handler failed", {{"why", failure.what()}});
      close(1011, "the server failed on this message");
    }
    buffer_.consume(buffer_.size());
    if (buffer_.capacity() > 64 * limits::kib)
      buffer_.shrink_to_fit();
    if (open_ && queued_ < queued_bytes_high)
      read();
  }

  void write() {
    writing_ = true;
    stream_.text(true);
    stream_.async_write(net::buffer(queue_.front()),
                        [self = shared_from_this()](beast::error_code why, std::size_t) {
                          self->writing_ = false;
                          if (why)
                            return self->gone();
                          self->on_written();
                        });
  }

  void on_written() {
    queued_ -= queue_.front().size();
    queue_.pop_front();
    if (!queue_.empty())
      write();
    else if (closing_)
      return finish_close();
    if (open_ && queued_ < queued_bytes_high / 2) {
      if (!reading_)
        read();
      socket_->on_drained();
    }
  }

  void finish_close() {
    if (!open_ || close_sent_)
      return;
    close_sent_ = true;
    stream_.async_close(*closing_,
                        [self = shared_from_this()](beast::error_code) { self->gone(); });
  }

  void gone() {
    if (!std::exchange(open_, false))
      return;
    if (auto served = std::exchange(socket_, nullptr))
      served->on_closed();
  }

  websocket::stream<beast::tcp_stream> stream_;
  std::shared_ptr<door> door_;
  beast::flat_buffer buffer_;
  std::shared_ptr<socket> socket_;
  std::deque<std::string> queue_;
  std::size_t queued_ = 0;
  std::optional<websocket::close_reason> closing_;
  bool open_ = false;
  bool reading_ = false;
  bool writing_ = false;
  bool close_sent_ = false;
};

} // namespace

void serve_websocket(beast::tcp_stream stream, std::shared_ptr<door> shared,
                     beast::http::request<beast::http::string_body> asked, request what,
                     const socket_factory& make) {
  std::make_shared<socket_connection>(std::move(stream), std::move(shared))
      ->run(std::move(asked), std::move(what), make);
}

} // namespace berth::http
