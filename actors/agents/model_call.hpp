// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"

#include "models/dialect.hpp"
#include "models/retry.hpp"
#include "models/wire.hpp"
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace berth {

/// How one attempt of a call, or one look at an endpoint, ended.
struct attempt_result {
  std::uint64_t ticket = 0;
  models::attempt_end end = models::attempt_end::network;
  int status = 0;
  std::optional<std::chrono::milliseconds> retry_after;
  bool passed_on = false;
  std::string why;
  model_answer answer;
  /// The body, of a look.
  std::string body;
};

/// Where the thread of the connections leaves what MODEL is to know; it is woken by an
/// update_atom, once for all that waits. Any thread.
class model_inbox {
public:
  explicit model_inbox(model_actor reader)
    : reader_(std::move(reader)) {}

  void put(attempt_result one);
  std::vector<attempt_result> take();

private:
  model_actor reader_;
  std::mutex mutex_;
  std::vector<attempt_result> all_; // guarded by mutex_
};

/// One attempt at a call on the thread of the connections: reads the answer as it comes and tells
/// PROGRESS every piece of text at once. What comes while the thread is busy becomes one event.
class call_listener final : public models::exchange_listener {
public:
  struct options {
    std::uint64_t ticket = 0;
    std::unique_ptr<models::answer_reader> reader;
    std::shared_ptr<model_inbox> inbox;
    /// Without a stream nothing is told.
    progress_actor progress;
    std::string stream;
    std::string step;
  };

  explicit call_listener(options how)
    : how_(std::move(how)) {}

  /// Nothing is told to PROGRESS when this has returned. Any thread.
  void mute();

  bool on_data(int status, std::string_view data) override;
  bool on_pause() override;
  void on_end(models::exchange_end end) override;

private:
  using state = models::answer_reader::state;

  void pass_on();
  attempt_result judge(models::exchange_end& end);
  void report(attempt_result result);

  options how_;
  std::string refusal_;
  bool passed_on_ = false;
  bool reported_ = false;
  std::mutex mutex_;
  bool muted_ = false; // guarded by mutex_
};

/// A look at an endpoint: its whole answer, bounded.
class look_listener final : public models::exchange_listener {
public:
  look_listener(std::uint64_t ticket, std::shared_ptr<model_inbox> inbox)
    : ticket_(ticket)
    , inbox_(std::move(inbox)) {}

  bool on_data(int status, std::string_view data) override;
  bool on_pause() override { return true; }
  void on_end(models::exchange_end end) override;

private:
  std::uint64_t ticket_;
  std::shared_ptr<model_inbox> inbox_;
  std::string body_;
};

} // namespace berth
