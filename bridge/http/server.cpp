// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/server.hpp"

#include "bridge/http/connection.hpp"
#include "bridge/http/fcctl/facade.hpp"
#include "config/log.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <pthread.h>
#include <thread>

namespace berth::http {

namespace {

/// Connections beyond the limit that are told so at one time; more are closed without a word.
constexpr std::size_t refusals_max = 64;
/// How long to wait when the process has no descriptor left.
constexpr std::chrono::milliseconds accept_pause{50};

} // namespace

struct server::core : std::enable_shared_from_this<core> {
  core(server_options options, porter& carrier)
    : io(std::make_shared<net::io_context>(1))
    , acceptor(*io)
    , pause(*io)
    , shared(std::make_shared<door>())
    , gateway(carrier, [weak = std::weak_ptr(io)](std::function<void()> work) {
      if (auto alive = weak.lock())
        net::post(*alive, std::move(work));
    }) {
    shared->options = std::move(options);
  }

  error listen() {
    beast::error_code why;
    auto address = net::ip::make_address(shared->options.address, why);
    tcp::endpoint endpoint{address, shared->options.port};
    if (!why)
      acceptor.open(endpoint.protocol(), why);
    if (!why)
      acceptor.set_option(net::socket_base::reuse_address{true}, why);
    if (!why)
      acceptor.bind(endpoint, why);
    if (!why)
      acceptor.listen(net::socket_base::max_listen_connections, why);
    if (!why)
      port = acceptor.local_endpoint(why).port();
    if (why)
      return fail(ec::internal, "cannot listen for HTTP on " + shared->options.address + ":"
                                    + std::to_string(shared->options.port) + ": " + why.message());
    return {};
  }

  void accept() {
    acceptor.async_accept([this](beast::error_code why, tcp::socket socket) {
      if (shared->stopping || why == net::error::operation_aborted)
        return;
      if (why) {
        log::warn("http", "cannot accept", {{"why", why.message()}});
        pause.expires_after(accept_pause);
        return pause.async_wait([this](beast::error_code) { accept(); });
      }
      admit(std::move(socket));
      accept();
    });
  }

  void admit(tcp::socket socket) {
    std::size_t open = shared->guests.size();
    if (open >= shared->options.connections_max + refusals_max)
      return;
    auto guest = std::make_shared<connection>(std::move(socket), shared);
    if (open >= shared->options.connections_max)
      guest->refuse();
    else
      guest->run();
  }

  void serve() {
    pthread_setname_np(pthread_self(), "berth-http");
    for (;;) {
      try {
        io->run();
        return;
      } catch (const std::exception& failure) {
        log::error("http", "a callback failed", {{"why", failure.what()}});
      }
    }
  }

  std::shared_ptr<net::io_context> io;
  tcp::acceptor acceptor;
  net::steady_timer pause;
  std::shared_ptr<door> shared;
  std::uint16_t port = 0;
  desk gateway;
  std::vector<std::unique_ptr<facade>> facades;
  std::thread thread;
};

std::vector<std::unique_ptr<facade>> make_facades(const settings& values) {
  std::vector<std::unique_ptr<facade>> all;
  all.push_back(std::make_unique<fcctl::fcctl_facade>(values));
  return all;
}

server_options options_of(const settings& values) {
  server_options options;
  options.address = values.http_address;
  options.port = values.http_port;
  options.tokens = values.http_tokens;
  return options;
}

server::server(server_options options, porter& carrier)
  : core_(std::make_shared<core>(std::move(options), carrier)) {}

server::~server() {
  stop();
}

void server::add(std::unique_ptr<facade> contract) {
  contract->add_routes(core_->shared->routes, core_->gateway);
  core_->facades.push_back(std::move(contract));
}

error server::start() {
  if (error why = core_->listen())
    return why;
  core_->accept();
  core_->thread = std::thread([c = core_.get()] { c->serve(); });
  log::info("http", "listening",
            {{"address", core_->shared->options.address}, {"port", std::to_string(core_->port)}});
  return {};
}

std::uint16_t server::port() const {
  return core_->port;
}

void server::stop() {
  if (!core_->thread.joinable())
    return;
  net::post(*core_->io, [c = core_.get()] {
    beast::error_code ignored;
    c->acceptor.close(ignored);
    c->shared->close_all();
    c->io->stop();
  });
  core_->thread.join();
}

} // namespace berth::http

namespace berth {

std::unique_ptr<http::server> make_http_server(const settings& values, porter& carrier) {
  auto made = std::make_unique<http::server>(http::options_of(values), carrier);
  for (auto& contract : http::make_facades(values))
    made->add(std::move(contract));
  return made;
}

} // namespace berth
