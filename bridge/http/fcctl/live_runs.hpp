// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/fcctl/context.hpp"

#include <map>
#include <memory>
#include <string>

/// Programs that run for a WebSocket, whatever its messages look like.
namespace berth::http::fcctl {

/// A program that runs for a socket.
struct execution {
  execute_request asked;
  std::string id;
  std::string job;
};

/// Hears of the programs of a socket. Called on the server's thread.
class run_watcher {
public:
  virtual ~run_watcher() = default;

  virtual void on_output(const execution& e, const char* stream, const std::string& text) = 0;
  /// The outcome has the output that is kept for an answer. Blocked programs end so, too.
  virtual void on_ended(const execution& e, const outcome& ended) = 0;
  virtual void on_failed(const execution& e, const error& why) = 0;
};

/// What became of one program: an answer to an execute request, or `{"error": ...}`.
using run_ended = std::function<void(const json& answer)>;

/// The programs of one socket: many at once, their output as it comes. Reads a job's output only as
/// fast as the client takes it. The watcher outlives close().
class live_runs : public std::enable_shared_from_this<live_runs> {
public:
  live_runs(desk gateway, const settings& values, std::shared_ptr<channel> out,
            run_watcher& watcher);
  ~live_runs();

  /// Starts a program; false, and the watcher was told, when it cannot be. `then` is told how it
  /// ended after the watcher was.
  bool start(execute_request asked, run_ended then = nullptr);
  /// Ends a program by its own id or its job's. False when there is none.
  bool cancel(const std::string& id);
  /// Goes on reading for a reader that was slow.
  void resume();
  /// Cancels what still runs; the watcher hears nothing more.
  void close();

private:
  struct run_state;

  void on_accepted(const std::shared_ptr<run_state>& e, const expected<accepted>& answer);
  void follow(const std::shared_ptr<run_state>& e);
  void on_slice(const std::shared_ptr<run_state>& e, const output_slice& slice);
  void put_output(const run_state& e, const char* stream, const std::string& text);
  void finish(const std::shared_ptr<run_state>& e, outcome ended);
  void fail_run(const std::shared_ptr<run_state>& e, const error& why);
  void forget(const std::shared_ptr<run_state>& e, const json& answer);
  void stop(const run_state& e);

  desk gateway_;
  const settings& values_;
  std::shared_ptr<channel> out_;
  run_watcher& watcher_;
  std::map<std::string, std::shared_ptr<run_state>> runs_;
  std::uint64_t unnamed_ = 0;
  bool closed_ = false;
};

} // namespace berth::http::fcctl
