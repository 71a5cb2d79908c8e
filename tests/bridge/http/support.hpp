// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/server.hpp"
#include "bridge/json.hpp"

#include <caf/typed_response_promise.hpp>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace berth::test {

/// What the fake GATEWAY answers, and what it was asked. Guarded by `lock`.
struct script {
  std::mutex lock;
  std::vector<run> runs;
  std::vector<submit> submits;
  std::vector<std::string> cancels;
  std::vector<open_session> opened;
  std::vector<put_files> puts;
  std::vector<query_history> queries;
  std::vector<session_info> sessions;
  std::map<std::string, std::string> files;
  std::vector<snapshot_info> snapshots;
  std::vector<rollback> rollbacks;
  /// Makes the outcome of a run; the default exits with 0 and prints "out" and "err".
  std::function<expected<outcome>(const run&)> on_run;
  /// Output of submitted jobs in the pieces in which it is read.
  std::vector<bytes> pieces;
  /// Submitted jobs run until they are cancelled.
  bool endless = false;

  std::vector<chat> chats;
  std::vector<std::string> cancelled_chats;
  std::vector<std::string> cancelled_turns;
  /// Answers a chat; without it chats wait until they are cancelled.
  std::function<expected<chat_reply>(const chat&)> on_chat;
  std::map<std::string, caf::typed_response_promise<chat_reply>> held_chats;
  std::vector<run_workflow> asked_workflows;
  /// Runs a workflow to its end; the default is one that never began.
  std::function<expected<workflow_info>(const run_workflow&)> on_workflow;
  std::map<std::string, workflow_info> workflows;
  /// So many readers find no place to wait for progress.
  std::size_t readers_refused = 0;
  std::string config = R"({"id": "Server", "roles": {"Default": {"name": "Default"}}})";

  template <class F>
  auto with(F f) {
    std::lock_guard guard{lock};
    return f(*this);
  }
};

/// An outcome of a program that printed.
outcome make_outcome(const run& request);
session_info make_session(const std::string& hex, const std::string& agent);
/// A snapshot of a session, taken after the only entry of its history.
snapshot_info make_snapshot(const session_info& of, const std::string& name);

/// A real server on a free port in front of a fake GATEWAY.
class http_house {
public:
  explicit http_house(http::server_options options = {});
  ~http_house();

  std::uint16_t port() const;
  std::uint16_t terraphim_port() const;

  /// Starts another server beside this one, and ends it. Says why it could not.
  error start_another(http::server_options options);

  /// Something happened to a conversation or workflow.
  void note(progress_event event) const;

  script answers;
  settings values;

private:
  struct rooms;
  std::unique_ptr<rooms> rooms_;
};

/// What came back.
struct answer {
  int status = 0;
  std::map<std::string, std::string> headers;
  std::string body;

  json tree() const { return json::parse(body); }
};

/// A client that sees every byte.
class raw_client {
public:
  explicit raw_client(std::uint16_t port);
  ~raw_client();
  raw_client(const raw_client&) = delete;
  raw_client& operator=(const raw_client&) = delete;

  void send(const std::string& data);
  /// Reads one whole reply; status 0 when the connection ended first. `head`: without a body.
  answer receive(bool head = false);
  /// Whether the server closes now, without another byte.
  bool closed();
  /// Bytes exactly so many; fewer when the connection ended.
  std::string take(std::size_t count);
  bool sent_all() const { return sent_all_; }

private:
  bool fill();

  int fd_ = -1;
  bool sent_all_ = true;
  std::string buffer_;
};

/// One request on one connection.
answer ask(std::uint16_t port, const std::string& method, const std::string& target,
           const std::string& body = "", const std::string& headers = "");

/// A WebSocket client in bare frames.
class raw_socket {
public:
  raw_socket(std::uint16_t port, const std::string& target);

  void text(const std::string& message);
  void frame(int opcode, bool final_one, const std::string& data);
  /// The next frame: opcode and payload; opcode -1 when the connection ended.
  std::pair<int, std::string> next();
  /// The next text message as JSON.
  json message();

private:
  raw_client client_;
};

} // namespace berth::test
