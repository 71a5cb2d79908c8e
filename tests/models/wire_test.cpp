// SPDX-License-Identifier: Apache-2.0
#include "tests/support/model_server.hpp"

#include <catch2/catch.hpp>

#include "models/wire.hpp"
#include <condition_variable>
#include <cstdlib>
#include <functional>

using namespace berth::models;
using namespace berth::test;
using namespace std::chrono_literals;
using how = exchange_end::how;
using nlohmann::json;

namespace {

constexpr auto hang_limit = 60s;

/// Keeps what it is told.
class witness : public exchange_listener {
public:
  explicit witness(std::size_t enough = SIZE_MAX)
    : enough_(enough) {}

  bool on_data(int, std::string_view data) override {
    std::lock_guard guard{mutex_};
    text_ += data;
    changed_.notify_all();
    return text_.size() < enough_;
  }
  bool on_pause() override { return true; }
  void on_end(exchange_end end) override {
    std::lock_guard guard{mutex_};
    REQUIRE_FALSE(end_);
    end_ = std::move(end);
    changed_.notify_all();
  }

  std::string text() const {
    std::lock_guard guard{mutex_};
    return text_;
  }
  bool wait_for(const std::function<bool()>& is_so) {
    std::unique_lock lock{mutex_};
    return changed_.wait_for(lock, hang_limit, is_so);
  }
  exchange_end end() {
    REQUIRE(wait_for([this] { return end_.has_value(); }));
    return *end_;
  }
  bool has_text() {
    return wait_for([this] { return !text_.empty(); });
  }
  bool ended() const {
    std::lock_guard guard{mutex_};
    return end_.has_value();
  }

private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string text_;
  std::optional<exchange_end> end_;
  std::size_t enough_;
};

bool eventually(const std::function<bool()>& is_so) {
  for (auto end = std::chrono::steady_clock::now() + hang_limit;
       std::chrono::steady_clock::now() < end; std::this_thread::sleep_for(5ms))
    if (is_so())
      return true;
  return false;
}

exchange chat_at(const model_server& models, bool stream = true) {
  return {.url = models.url() + "/api/chat",
          .body = json{{"model", "m"},
                       {"stream", stream},
                       {"messages", {{{"role", "user"}, {"content", "hello"}}}}}
                      .dump()};
}

exchange_end exchanged(wire& over, exchange what, std::string* text = nullptr) {
  auto seen = std::make_shared<witness>();
  over.start(std::move(what), seen);
  exchange_end end = seen->end();
  if (text != nullptr)
    *text = seen->text();
  return end;
}

} // namespace

TEST_CASE("An exchange gives the whole body and its status, over one kept connection") {
  model_server models;
  wire over;
  for (int i = 0; i < 3; ++i) {
    std::string text;
    exchange_end end = exchanged(over, chat_at(models, false), &text);
    CHECK(end.what == how::complete);
    CHECK(end.status == 200);
    CHECK(json::parse(text)["message"]["content"] == "hello");
  }
  json asked = models.requests();
  REQUIRE(asked.size() == 3);
  CHECK(asked[0]["connection"] == asked[2]["connection"]);
  CHECK_FALSE(asked[0]["headers"].contains("authorization"));
  CHECK(asked[0]["headers"]["content-type"] == "application/json");
}

TEST_CASE("A key is sent as a bearer's, and a refusal's body and Retry-After are given") {
  model_server models{
      {{"key", "the-key"}, {"rules", {{{"reply", {{"status", 429}, {"retry_after", 7}}}}}}}};
  wire over;
  CHECK(exchanged(over, chat_at(models)).status == 401);
  exchange with = chat_at(models);
  with.key = "the-key";
  std::string text;
  exchange_end end = exchanged(over, with, &text);
  CHECK(end.what == how::complete);
  CHECK(end.status == 429);
  CHECK(end.retry_after == 7s);
  CHECK(text.find("scripted failure") != std::string::npos);
}

TEST_CASE("Pieces are given as they come") {
  model_server models{
      {{"rules",
        {{{"reply", {{"text", "one two"}, {"pieces", 4}, {"hold", "two"}, {"hold_after", 1}}}}}}}};
  wire over;
  auto seen = std::make_shared<witness>();
  over.start(chat_at(models), seen);
  REQUIRE(seen->has_text());
  REQUIRE(eventually([&] { return models.state()["held"] == 1; }));
  CHECK(seen->text().find("one ") != std::string::npos);
  CHECK(seen->text().find("two") == std::string::npos);
  CHECK_FALSE(seen->ended());
  models.release("two");
  CHECK(seen->end().what == how::complete);
  CHECK(seen->text().find("two") != std::string::npos);
}

TEST_CASE("A cancelled exchange closes its connection, and nobody is told any more") {
  model_server models{
      {{"rules", {{{"reply", {{"text", "x"}, {"endless", true}, {"delay_ms", 5}}}}}}}};
  auto seen = std::make_shared<witness>();
  wire over;
  auto name = over.start(chat_at(models), seen);
  REQUIRE(seen->has_text());
  over.cancel(name);
  over.cancel(name);
  over.cancel(12345);
  CHECK(eventually([&] { return models.requests()[0]["state"] == "gone"; }));
  CHECK_FALSE(seen->ended());
  CHECK(models.state()["connections"] == 1); // the one that asks
}

TEST_CASE("A listener that has enough ends the exchange") {
  model_server models{{{"rules", {{{"reply", {{"text", "0123456789"}, {"endless", true}}}}}}}};
  wire over;
  auto seen = std::make_shared<witness>(10'000);
  over.start(chat_at(models), seen);
  CHECK(seen->end().what == how::stopped);
  CHECK(eventually([&] { return models.requests()[0]["state"] == "gone"; }));
}

TEST_CASE("Silence and lateness end an exchange, each as what it is") {
  model_server models{{{"rules",
                        {{{"when", {{"stream", true}}},
                          {"reply", {{"text", "one two"}, {"pieces", 4}, {"stall_after", 1}}}},
                         {{"reply", {{"text", "x"}, {"first_delay_ms", 200}}}}}}}};
  wire over;
  exchange quiet = chat_at(models);
  quiet.silence_timeout = 100ms;
  std::string text;
  CHECK(exchanged(over, quiet, &text).what == how::silence);
  CHECK(text.find("one ") != std::string::npos);
  exchange late = chat_at(models);
  late.whole_timeout = 100ms;
  CHECK(exchanged(over, late).what == how::deadline);
  // Silence before the first byte is no silence where a whole answer is waited for.
  exchange slow = chat_at(models, false);
  slow.silence_timeout = 50ms;
  slow.waits_for_first = true;
  CHECK(exchanged(over, slow).what == how::complete);
  slow.waits_for_first = false;
  CHECK(exchanged(over, slow).what == how::silence);
}

TEST_CASE("A connection that breaks, and one that cannot be made, are the network's") {
  model_server models{
      {{"rules",
        {{{"times", 1}, {"reply", {{"text", "one two"}, {"pieces", 4}, {"cut_after", 1}}}},
         {{"reply", {{"cut", true}}}}}}}};
  wire over;
  CHECK(exchanged(over, chat_at(models)).what == how::network);
  exchange_end cut = exchanged(over, chat_at(models));
  CHECK(cut.what == how::network);
  CHECK_FALSE(cut.detail.empty());
  exchange nobody = chat_at(models);
  nobody.url = "http://127.0.0.1:1/api/chat";
  exchange_end refused = exchanged(over, nobody);
  CHECK(refused.what == how::network);
  CHECK(refused.status == 0);
}

TEST_CASE(
    "Redirects are not followed, proxies of the environment not taken, other schemes not spoken") {
  model_server other;
  model_server models{
      {{"rules",
        {{{"reply", {{"status", 302}, {"headers", {{"Location", other.url() + "/api/tags"}}}}}}}}}};
  ::setenv("http_proxy", other.url().c_str(), 1);
  ::setenv("ALL_PROXY", other.url().c_str(), 1);
  wire over;
  CHECK(exchanged(over, chat_at(models)).status == 302);
  ::unsetenv("http_proxy");
  ::unsetenv("ALL_PROXY");
  CHECK(other.requests().empty());
  for (const char* url :
       {"file:///etc/hostname", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "no url"}) {
    CAPTURE(url);
    CHECK(exchanged(over, {.url = url}).what == how::hopeless);
  }
}

TEST_CASE("TLS without a certificate that can be trusted is refused") {
  model_server models;
  wire over;
  exchange sealed = chat_at(models);
  sealed.url = "https" + sealed.url.substr(4);
  CHECK(exchanged(over, sealed).what != how::complete);
  CHECK(models.requests().empty());
}

TEST_CASE("A wire that ends closes what is open, and calls nobody any more") {
  model_server models{
      {{"rules", {{{"reply", {{"text", "x"}, {"endless", true}, {"delay_ms", 1}}}}}}}};
  std::vector<std::shared_ptr<witness>> all;
  {
    wire over;
    for (int i = 0; i < 20; ++i) {
      all.push_back(std::make_shared<witness>());
      over.start(chat_at(models), all.back());
    }
    for (auto& each : all)
      REQUIRE(each->has_text());
  }
  for (auto& each : all)
    CHECK_FALSE(each->ended());
  CHECK(eventually([&] { return models.state()["open"] == 0; }));
}

TEST_CASE("Fifty exchanges at once are served at once") {
  model_server models{{{"rules", {{{"reply", {{"text", "{{last}}"}, {"hold", "all"}}}}}}}};
  wire over;
  std::vector<std::shared_ptr<witness>> all;
  for (int i = 0; i < 50; ++i) {
    all.push_back(std::make_shared<witness>());
    over.start(chat_at(models), all.back());
  }
  REQUIRE(eventually([&] { return models.state()["held"] == 50; }));
  models.release("all");
  for (auto& each : all)
    CHECK(each->end().what == how::complete);
  CHECK(models.state()["open_max"] == 50);
}
