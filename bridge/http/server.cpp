// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/server.hpp"

#include "bridge/http/connection.hpp"
#include "bridge/http/fcctl/facade.hpp"
#include "bridge/http/terraphim/facade.hpp"
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

/// One port that is listened on.
class listener {
public:
  listener(net::io_context& io, std::shared_ptr<door> shared, entrance by)
    : acceptor_(io)
    , pause_(io)
    , shared_(std::move(shared))
    , entrance_(by) {}

  /// Binds and listens. `setting` is what the error tells an operator to change.
  error open(std::uint16_t port, const char* setting) {
    beast::error_code why;
    auto address = net::ip::make_address(shared_->options.address, why);
    tcp::endpoint endpoint{address, port};
    if (!why)
      acceptor_.open(endpoint.protocol(), why);
    if (!why)
      acceptor_.set_option(net::socket_base::reuse_address{true}, why);
    if (!why)
      acceptor_.bind(endpoint, why);
    if (!why)
      acceptor_.listen(net::socket_base::max_listen_connections, why);
    if (!why)
      port_ = acceptor_.local_endpoint(why).port();
    if (why)
      return fail(ec::internal, "cannot listen for HTTP on " + shared_->options.address + ":"
                                    + std::to_string(port) + " (" + setting
                                    + "): " + why.message());
    return {};
  }

  void accept() {
    acceptor_.async_accept([this](beast::error_code why, tcp::socket socket) {
      if (shared_->stopping || why == net::error::operation_aborted)
        return;
      if (why) {
        log::warn("http", "cannot accept", {{"why", why.message()}});
        pause_.expires_after(accept_pause);
        return pause_.async_wait([this](beast::error_code) { accept(); });
      }
      admit(std::move(socket));
      accept();
    });
  }

  void close() {
    beast::error_code ignored;
    acceptor_.close(ignored);
  }

  std::uint16_t port() const { return port_; }

private:
  void admit(tcp::socket socket) {
    std::size_t open = shared_->guests.size();
    if (open >= shared_->options.connections_max + refusals_max)
      return;
    auto guest = std::make_shared<connection>(std::move(socket), shared_, entrance_);
    if (open >= shared_->options.connections_max)
      guest->refuse();
    else
      guest->run();
  }

  tcp::acceptor acceptor_;
  net::steady_timer pause_;
  std::shared_ptr<door> shared_;
  entrance entrance_;
  std::uint16_t port_ = 0;
};

/// Posts to a server that may be gone by then.
poster poster_to(const std::shared_ptr<net::io_context>& io) {
  return [weak = std::weak_ptr(io)](std::chrono::milliseconds wait, std::function<void()> work) {
    auto alive = weak.lock();
    if (!alive)
      return;
    if (wait.count() == 0)
      return net::post(*alive, std::move(work));
    auto timer = std::make_shared<net::steady_timer>(*alive, wait);
    timer->async_wait([timer, work = std::move(work)](beast::error_code) { work(); });
  };
}

} // namespace

struct server::core : std::enable_shared_from_this<core> {
  core(server_options options, porter& carrier)
    : io(std::make_shared<net::io_context>(1))
    , shared(std::make_shared<door>())
    , main(*io, shared, entrance::main)
    , terraphim(*io, shared, entrance::terraphim)
    , gateway(carrier, poster_to(io)) {
    shared->options = std::move(options);
  }

  error listen() {
    const server_options& options = shared->options;
    if (error why = main.open(options.port, "http_port"))
      return why;
    main.accept();
    if (options.terraphim_port == 0)
      return {};
    if (error why = terraphim.open(options.terraphim_port, "http_terraphim_port; 0: no such port"))
      return why;
    terraphim.accept();
    return {};
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
  std::shared_ptr<door> shared;
  listener main;
  listener terraphim;
  desk gateway;
  std::vector<std::unique_ptr<facade>> facades;
  std::thread thread;
};

std::vector<std::unique_ptr<facade>> make_facades(const settings& values) {
  std::vector<std::unique_ptr<facade>> all;
  all.push_back(std::make_unique<fcctl::fcctl_facade>(values));
  all.push_back(std::make_unique<terraphim::terraphim_facade>(values));
  return all;
}

server_options options_of(const settings& values) {
  server_options options;
  options.address = values.http_address;
  options.port = values.http_port;
  options.terraphim_port = values.http_terraphim_port;
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
  core_->thread = std::thread([c = core_.get()] { c->serve(); });
  log::info("http", "listening",
            {{"address", core_->shared->options.address},
             {"port", std::to_string(port())},
             {"terraphim_port", std::to_string(terraphim_port())}});
  return {};
}

std::uint16_t server::port() const {
  return core_->main.port();
}

std::uint16_t server::terraphim_port() const {
  return core_->terraphim.port();
}

void server::stop() {
  if (!core_->thread.joinable())
    return;
  net::post(*core_->io, [c = core_.get()] {
    c->main.close();
    c->terraphim.close();
    c->shared->close_all();
    c->io->stop();
  });
  core_->thread.join();
  core_->gateway.close();
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
