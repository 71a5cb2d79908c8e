// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/progress.hpp"
#include "messages/workflow.hpp"

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

/// A workflow as a tree that is drawn while it runs. Plain logic: no terminal, no clock of its own.
namespace berth {

/// A line of the drawn workflow: how it stands, and its text without control characters.
struct workflow_line {
  enum class look { heading, waiting, running, done, failed, aside, output, warning };
  std::string rails;
  look how = look::aside;
  std::string text;
};

/// What is known of a workflow, from what it tells or from what it is now.
class workflow_tree {
public:
  void take(const progress_event& event);
  void take(const workflow_info& info);

  /// The tree as it is at a moment of the server's clock; 0: as of its last news. Of the output of
  /// a step under way the last `output_lines` are shown.
  std::vector<workflow_line> draw(std::int64_t now_ms, std::size_t output_lines) const;

  bool ended() const { return is_terminal(status_); }
  workflow_status status() const { return status_; }
  /// The result, or why there is none.
  const std::string& outcome_text() const { return outcome_; }
  std::int64_t last_news_ms() const { return last_news_ms_; }

private:
  /// A program that ran in a step, a decision, or a warning.
  struct note {
    std::string id;
    std::string text;
    workflow_line::look how = workflow_line::look::aside;
  };
  struct step {
    std::string id;
    std::string name;
    std::string role;
    workflow_status status = workflow_status::running;
    std::string why;
    std::uint32_t attempt = 1;
    std::int64_t began_ms = 0;
    std::int64_t ended_ms = 0;
    std::uint64_t tokens = 0;
    std::vector<note> notes;
    std::string output; // the end of what it says
  };

  step& of(const std::string& id);
  void end_step(step& which, const progress_event& event);
  void remark(const progress_event& event, workflow_line::look how);
  void draw_step(const step& which, bool last, std::int64_t now_ms, std::size_t output_lines,
                 std::vector<workflow_line>& to) const;
  std::string heading(std::int64_t now_ms) const;

  std::string id_;
  std::string pattern_;
  workflow_status status_ = workflow_status::pending;
  double progress_ = 0;
  model_usage usage_;
  std::string outcome_;
  std::int64_t began_ms_ = 0;
  std::int64_t last_news_ms_ = 0;
  std::deque<step> steps_;
  std::vector<note> notes_; // of no step
};

/// One event as a line of its own, for what is no terminal; empty: it is not worth one.
std::string line_of(const progress_event& event);

} // namespace berth
