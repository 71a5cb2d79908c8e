// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/agents/agent_texts.hpp"
#include "actors/agents/tools.hpp"
#include "actors/interfaces.hpp"
#include "config/settings.hpp"

#include <array>
#include <functional>
#include <memory>
#include <string>

namespace berth {

/// Where an agent does what it was told: its session, opened when it is first needed, and found
/// again after a restart. A part of an AGENT, in whose thread it works; one thing at a time.
class workbench {
public:
  /// What was done. Called once for each thing.
  using done = std::function<void(agent_act)>;

  workbench(agent_actor::pointer self, std::shared_ptr<const settings> config,
            gateway_actor gateway, progress_actor progress, std::string conversation);

  /// A turn begins: whose rules hold, and where its events go.
  void begin(role_info role, std::string stream, std::string step);

  /// Does what a tool or a text asks for. `name` is the tool's.
  void act(const std::string& name, tool_request what, done then);

  /// Ends what is under way; its `done` is called.
  void cancel();

  /// Closes the session, if there is one, and calls `then`.
  void close(std::function<void()> then);

  /// Tells of something that happened.
  void note(progress_kind kind, std::string name, std::string text, std::string job = {},
            std::uint32_t number = 0) const;

  /// The session; empty: none was needed yet.
  const std::string& session() const { return session_; }
  void remember_session(std::string session) { session_ = std::move(session); }

private:
  using in_session = std::function<void()>;

  void with_session(in_session then);
  void open_it(in_session then);
  void lose_session();
  bool try_again(const error& why);
  void refuse(std::string why);
  void tell(std::string text);
  void finish();

  void perform();
  void execute();
  void forget_snapshot();
  void submit_it();
  void read_on();
  void take(const output_slice& slice);
  void ended(outcome result);
  void roll_back_failed();
  void read_it(const read_file_call& call);
  void write_it(std::uint64_t offset, std::size_t from);
  void list_it(const list_files_call& call);
  void roll_back(const rollback_call& call);
  void roll_back_to(rollback request);
  void roll_back_before_last_job();

  agent_actor::pointer self_;
  std::shared_ptr<const settings> config_;
  gateway_actor gateway_;
  progress_actor progress_;
  std::string conversation_;
  role_info role_;
  std::string stream_;
  std::string step_;
  std::string session_;

  // The thing that is being done.
  tool_request what_;
  agent_act act_;
  done then_;
  bool busy_ = false;
  bool tried_again_ = false;
  bool cancelled_ = false;
  std::string job_;
  std::string last_job_;
  std::string snapshot_before_; // of the last run; empty: none was taken
  berth::read next_;
  std::array<std::string, 2> output_;
  std::array<text_stream, 2> shown_;
};

} // namespace berth
