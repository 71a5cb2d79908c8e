// SPDX-License-Identifier: Apache-2.0
#include "models/wire.hpp"

#include "config/threads.hpp"
#include "config/version.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include "models/limits.hpp"
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <curl/curl.h>

namespace berth::models {

namespace {

using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "berth: the wire to language models cannot run: %s: %s\n", what,
               std::strerror(errno));
  std::abort();
}

/// What libcurl's code means for whoever thinks of trying again.
exchange_end::how meaning_of(CURLcode code) {
  switch (code) {
  case CURLE_OK:
    return exchange_end::how::complete;
  case CURLE_URL_MALFORMAT:
  case CURLE_UNSUPPORTED_PROTOCOL:
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CERTPROBLEM:
  case CURLE_SSL_CACERT_BADFILE:
  case CURLE_SSL_ISSUER_ERROR:
  case CURLE_OUT_OF_MEMORY:
    return exchange_end::how::hopeless;
  default:
    return exchange_end::how::network;
  }
}

} // namespace

/// One exchange under way.
struct wire::transfer {
  token name = 0;
  exchange what;
  std::shared_ptr<exchange_listener> listener;
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  std::array<char, CURL_ERROR_SIZE> fault{};
  clock::time_point deadline;
  clock::time_point heard;
  bool has_data = false;
  bool stopped = false;
  std::size_t head_bytes = 0;
  /// Data came that on_pause() was not called for.
  bool fresh = false;

  transfer() = default;
  transfer(const transfer&) = delete;
  transfer& operator=(const transfer&) = delete;
  ~transfer() {
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
  }

  bool head_too_large() const { return head_bytes > limits::model_head_bytes_max; }

  /// When it is to be ended unless it is heard of before.
  clock::time_point due() const {
    if (what.waits_for_first && !has_data)
      return deadline;
    return std::min(deadline, heard + what.silence_timeout);
  }

  int status() const {
    long code = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &code);
    return static_cast<int>(code);
  }
};

/// Everything of the wire that belongs to its thread.
class wire::engine {
public:
  explicit engine(int wake)
    : epoll_(::epoll_create1(EPOLL_CLOEXEC))
    , multi_(curl_multi_init()) {
    if (!epoll_ || multi_ == nullptr)
      die("epoll_create1");
    epoll_event event{.events = EPOLLIN, .data = {.fd = wake}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake, &event) != 0)
      die("epoll_ctl");
    curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &engine::on_socket);
    curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &engine::on_timer);
    curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
    curl_multi_setopt(multi_, CURLMOPT_PIPELINING, long{CURLPIPE_NOTHING});
    curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, limits::model_connections_kept_max);
  }

  ~engine() {
    for (auto& [name, each] : transfers_)
      curl_multi_remove_handle(multi_, each->easy);
    transfers_.clear();
    curl_multi_cleanup(multi_);
  }

  engine(const engine&) = delete;
  engine& operator=(const engine&) = delete;

  void take(order one);
  /// Waits for a socket, for time or for the wake descriptor, and does what is to be done.
  void turn(int wake);

private:
  static int on_socket(CURL* easy, curl_socket_t fd, int what, void* self, void* known);
  static int on_timer(CURLM* multi, long timeout_ms, void* self);
  static std::size_t on_head(const char* data, std::size_t size, std::size_t count, void* self);
  static std::size_t on_body(const char* data, std::size_t size, std::size_t count, void* self);

  bool prepare(transfer& made);
  void act(curl_socket_t fd, int mask);
  void run_timer();
  void collect();
  void pause_all();
  void end_overdue();
  void end(transfer& which, exchange_end how);
  int wait_ms() const;

  owned_fd epoll_;
  CURLM* multi_;
  std::map<token, std::unique_ptr<transfer>> transfers_;
  /// When libcurl wants to be called.
  std::optional<clock::time_point> curl_due_;
  /// No transfer is due earlier.
  clock::time_point next_due_ = clock::time_point::max();
};

int wire::engine::on_socket(CURL*, curl_socket_t fd, int what, void* self, void* known) {
  auto& to = *static_cast<engine*>(self);
  if (what == CURL_POLL_REMOVE) {
    ::epoll_ctl(to.epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
    curl_multi_assign(to.multi_, fd, nullptr);
    return 0;
  }
  std::uint32_t events =
      (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U);
  epoll_event event{.events = events, .data = {.fd = fd}};
  // A descriptor that libcurl closed without a word may be back under the same number.
  if (known == nullptr || ::epoll_ctl(to.epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0)
    ::epoll_ctl(to.epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  curl_multi_assign(to.multi_, fd, self);
  return 0;
}

int wire::engine::on_timer(CURLM*, long timeout_ms, void* self) {
  auto& to = *static_cast<engine*>(self);
  if (timeout_ms < 0)
    to.curl_due_.reset();
  else
    to.curl_due_ = clock::now() + milliseconds{timeout_ms};
  return 0;
}

std::size_t wire::engine::on_head(const char*, std::size_t size, std::size_t count, void* self) {
  auto& of = *static_cast<transfer*>(self);
  of.heard = clock::now();
  of.head_bytes += size * count;
  return of.head_too_large() ? 0 : size * count;
}

std::size_t wire::engine::on_body(const char* data, std::size_t size, std::size_t count,
                                  void* self) {
  auto& of = *static_cast<transfer*>(self);
  of.heard = clock::now();
  of.has_data = true;
  of.fresh = true;
  of.stopped = of.stopped || !of.listener->on_data(of.status(), {data, size * count});
  return of.stopped ? 0 : size * count;
}

bool wire::engine::prepare(transfer& made) {
  made.easy = curl_easy_init();
  if (made.easy == nullptr)
    return false;
  auto set = [&](CURLoption option, auto value) { curl_easy_setopt(made.easy, option, value); };
  auto head = [&](const std::string& line) {
    made.headers = curl_slist_append(made.headers, line.c_str());
  };
  set(CURLOPT_URL, made.what.url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_PROXY, "");
  set(CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  set(CURLOPT_NOSIGNAL, 1L);
  // An end never waits for a name server: libcurl would, for its thread that asks one.
  set(CURLOPT_QUICK_EXIT, 1L);
  set(CURLOPT_FRESH_CONNECT, made.what.fresh_connection ? 1L : 0L);
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(made.what.connect_timeout.count()));
  set(CURLOPT_USERAGENT, (std::string{"berth/"} + version).c_str());
  set(CURLOPT_ERRORBUFFER, made.fault.data());
  set(CURLOPT_PRIVATE, &made);
  set(CURLOPT_HEADERFUNCTION, &engine::on_head);
  set(CURLOPT_HEADERDATA, &made);
  set(CURLOPT_WRITEFUNCTION, &engine::on_body);
  set(CURLOPT_WRITEDATA, &made);
  head("Accept: application/json, text/event-stream, application/x-ndjson");
  if (!made.what.key.empty())
    head((made.what.key_has_own_header ? "api-key: " : "Authorization: Bearer ") + made.what.key);
  if (!made.what.body.empty()) {
    head("Content-Type: application/json");
    head("Expect:"); // no round trip before the body
    set(CURLOPT_POST, 1L);
    set(CURLOPT_POSTFIELDS, made.what.body.data());
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(made.what.body.size()));
  }
  set(CURLOPT_HTTPHEADER, made.headers);
  return curl_multi_add_handle(multi_, made.easy) == CURLM_OK;
}

void wire::engine::take(order one) {
  if (!one.what) {
    if (auto at = transfers_.find(one.which); at != transfers_.end()) {
      curl_multi_remove_handle(multi_, at->second->easy); // closes what is not at its end
      transfers_.erase(at);
    }
    return;
  }
  auto made = std::make_unique<transfer>();
  made->name = one.which;
  made->what = std::move(*one.what);
  made->listener = std::move(one.listener);
  made->heard = clock::now();
  made->deadline = made->heard + made->what.whole_timeout;
  if (!prepare(*made))
    return made->listener->on_end(
        {.what = exchange_end::how::hopeless, .detail = "libcurl does not take the request"});
  next_due_ = std::min(next_due_, made->due());
  transfers_.emplace(one.which, std::move(made));
}

void wire::engine::act(curl_socket_t fd, int mask) {
  int running = 0;
  curl_multi_socket_action(multi_, fd, mask, &running);
}

void wire::engine::run_timer() {
  if (!curl_due_ || *curl_due_ > clock::now())
    return;
  curl_due_.reset();
  act(CURL_SOCKET_TIMEOUT, 0);
}

void wire::engine::end(transfer& which, exchange_end how) {
  how.status = which.status();
  curl_off_t wait_s = 0;
  if (curl_easy_getinfo(which.easy, CURLINFO_RETRY_AFTER, &wait_s) == CURLE_OK && wait_s > 0)
    how.retry_after = std::chrono::seconds{std::min<curl_off_t>(wait_s, 1'000'000)};
  curl_multi_remove_handle(multi_, which.easy);
  auto node = transfers_.extract(which.name);
  node.mapped()->listener->on_end(std::move(how));
}

/// Tells of the exchanges that libcurl is done with.
void wire::engine::collect() {
  int left = 0;
  while (CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE)
      continue;
    CURLcode code = message->data.result;
    transfer* done = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &done);
    exchange_end how{.what = meaning_of(code)};
    if (done->stopped)
      how.what = exchange_end::how::stopped;
    else if (done->head_too_large())
      how = {.what = exchange_end::how::hopeless, .detail = "the head of the answer is too large"};
    else if (code != CURLE_OK)
      how.detail = done->fault[0] != '\0' ? done->fault.data() : curl_easy_strerror(code);
    end(*done, std::move(how));
  }
}

void wire::engine::pause_all() {
  for (auto& [name, each] : transfers_) {
    if (!std::exchange(each->fresh, false) || each->listener->on_pause())
      continue;
    // Its last bytes may be on their way: without them the connection is of no use any more.
    each->deadline = std::min(each->deadline, clock::now() + limits::model_linger);
    next_due_ = std::min(next_due_, each->deadline);
  }
}

void wire::engine::end_overdue() {
  auto now = clock::now();
  if (now < next_due_)
    return;
  std::vector<token> late;
  next_due_ = clock::time_point::max();
  for (auto& [name, each] : transfers_) {
    if (each->due() <= now)
      late.push_back(name);
    else
      next_due_ = std::min(next_due_, each->due());
  }
  for (token name : late) {
    transfer& each = *transfers_.at(name);
    bool over = each.deadline <= now;
    end(each, {.what = over ? exchange_end::how::deadline : exchange_end::how::silence});
  }
}

int wire::engine::wait_ms() const {
  auto due = std::min(next_due_, curl_due_.value_or(clock::time_point::max()));
  if (due == clock::time_point::max())
    return -1;
  auto left = std::chrono::ceil<milliseconds>(due - clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000));
}

void wire::engine::turn(int wake) {
  std::array<epoll_event, 64> events;
  int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), wait_ms());
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.fd == wake)
      continue;
    int mask = (event.events & EPOLLIN ? CURL_CSELECT_IN : 0)
               | (event.events & EPOLLOUT ? CURL_CSELECT_OUT : 0)
               | (event.events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
    act(event.data.fd, mask);
  }
  run_timer();
  pause_all();
  collect();
  end_overdue();
}

wire::wire()
  : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  static const bool ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  if (!wake_ || !ready)
    die("eventfd");
  thread_ = start_without_signals([this] { run(); });
}

wire::~wire() {
  {
    std::lock_guard guard{mutex_};
    stopping_ = true;
  }
  std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
  thread_.join();
}

wire::token wire::start(exchange what, std::shared_ptr<exchange_listener> listener) {
  token name = 0;
  {
    std::lock_guard guard{mutex_};
    name = ++last_token_;
  }
  post({.which = name, .what = std::move(what), .listener = std::move(listener)});
  return name;
}

void wire::cancel(token which) {
  post({.which = which, .what = std::nullopt, .listener = nullptr});
}

void wire::post(order one) {
  bool first = false;
  {
    std::lock_guard guard{mutex_};
    first = orders_.empty();
    orders_.push_back(std::move(one));
  }
  if (first) {
    std::uint64_t count = 1;
    (void)!::write(wake_.get(), &count, sizeof count);
  }
}

void wire::run() {
  ::prctl(PR_SET_NAME, "berth-models");
  engine work{wake_.get()};
  for (;;) {
    std::vector<order> orders;
    std::uint64_t count = 0;
    (void)!::read(wake_.get(), &count, sizeof count);
    {
      std::lock_guard guard{mutex_};
      if (stopping_)
        return;
      orders.swap(orders_);
    }
    for (order& one : orders)
      work.take(std::move(one));
    work.turn(wake_.get());
  }
}

} // namespace berth::models
