// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/agents/own_turn.hpp"
#include "bridge/http/fcctl/live_runs.hpp"
#include "bridge/http/terraphim/context.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

namespace berth::http::terraphim {

/// `/ws`: commands in, and what workflows, agents and programs do out, as it happens. Bounded in
/// what it follows and asks at once; events are read only as fast as the client takes them. When
/// the client leaves, its chats and programs end; workflows go on.
class live_socket : public socket,
                    public workflow_audience,
                    public fcctl::run_watcher,
                    public std::enable_shared_from_this<live_socket> {
public:
  live_socket(const shared_context& c, const request& what, const std::shared_ptr<channel>& out);
  ~live_socket() override;

  /// The first message.
  void greet();

  void on_text(std::string text) override;
  void on_binary() override { refuse("Binary messages not supported"); }
  void on_drained() override;
  void on_closed() override;

  void on_started(const std::string& workflow) override;

  void on_output(const fcctl::execution& e, const char* stream, const std::string& text) override;
  void on_ended(const fcctl::execution& e, const outcome& ended) override;
  void on_failed(const fcctl::execution& e, const error& why) override;

private:
  using handler_type = void (live_socket::*)(const json& message, const json& data);

  /// What a message to the client carries.
  struct told {
    json data = {};
    std::string workflow = {};
    std::string error = {};
  };

  /// A workflow or a conversation whose events the client gets.
  struct following {
    std::uint64_t after = 0;
    /// Tokens, tools and output too, not only steps.
    bool every_event = false;
    bool tell_start = true;
    /// The client did not ask for it: it may be waiting for its POST to be answered.
    bool uninvited = false;
    bool is_chat = false;
    /// Of a conversation: which chat's turn is told.
    own_turn turn = {};
    /// Nothing is added to what there is now.
    bool ended = false;

    /// Set while the client is too slow for more.
    bool paused = false;
    std::uint64_t question = 0;
    std::uint32_t steps_begun = 0;
    std::uint32_t steps_ended = 0;
    /// Names of steps that run, by their ids.
    std::map<std::string, std::string> names = {};
    /// A chat's last message.
    json reply = {};
  };
  using followed = std::shared_ptr<following>;

  void say(const char* type, told what);
  void refuse(const std::string& why, json data = {}, std::string workflow = {});
  void refuse(const error& why, std::string workflow = {});

  template <class Reply, class Request>
  void ask(Request what, std::string workflow, std::function<void(const Reply&)> then);
  std::string workflow_of(const json& message, const json& data) const;
  bool needs_workflow(const json& message, const json& data, std::string& to);
  template <class Request>
  void change(const json& message, const json& data, const char* type);

  void on_nothing(const json&, const json&) {}
  void on_ping(const json& message, const json& data);
  void on_session_info(const json& message, const json& data);
  void on_status(const json& message, const json& data);
  void on_list(const json& message, const json& data);
  void on_pause(const json& message, const json& data);
  void on_resume(const json& message, const json& data);
  void on_stop(const json& message, const json& data);
  void on_update_config(const json& message, const json& data);
  void on_start(const json& message, const json& data);
  void name_session(const std::string& alias, const std::string& workflow);
  void on_subscribe(const json& message, const json& data);
  void on_unsubscribe(const json& message, const json& data);
  void on_execute(const json& message, const json& data);
  void on_cancel_execution(const json& message, const json& data);
  void on_chat(const json& message, const json& data);
  void on_cancel_chat(const json& message, const json& data);
  void take_turn(chat turn, std::uint64_t after);

  void follow(const std::string& id, following how);
  void forget(const std::string& id);
  bool follows(const std::string& id, const followed& f) const;
  void read_on(const std::string& id, const followed& f);
  void read_later(const std::string& id, const followed& f, std::chrono::milliseconds wait);
  void on_page(const std::string& id, const followed& f, const expected<progress_page>& answer);
  void look_after(const std::string& id, const followed& f);
  void tell_event(const std::string& id, following& f, const progress_event& event);
  void tell_step(const std::string& id, following& f, const progress_event& event);
  void tell_quality(const std::string& id, const std::string& step);
  void tell_progress(const std::string& id, const following& f, const progress_event& event,
                     json more);
  void end_workflow(const std::string& id, const followed& f);
  void end_chat(const std::string& id, json reply);

  shared_context c_;
  std::shared_ptr<channel> out_;
  std::shared_ptr<fcctl::live_runs> runs_;
  std::string id_;
  std::string client_;
  std::int64_t connected_ms_;
  std::map<std::string, followed> followed_;
  /// Sessions that the client named when it started a workflow, both ways. Bounded: those of
  /// workflows that have ended go when there are too many.
  std::map<std::string, std::string> workflow_of_;
  std::map<std::string, std::string> alias_of_;
  /// Conversations with a chat of this socket until its reply was told, and the chat's name.
  std::map<std::string, std::string> turns_;
  std::size_t questions_ = 0;
  bool closed_ = false;
};

} // namespace berth::http::terraphim
