// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/workflows/pattern.hpp"

#include <string>
#include <string_view>
#include <vector>

/// Puts together what steps are asked.
namespace berth {

/// A question in parts. What other steps wrote stands in marks, so that it can be told from what is
/// asked, and is cut where all of it would be too long: the oldest first.
class brief {
public:
  /// A part under a title.
  brief& part(std::string_view title, std::string_view text);
  /// What another step wrote.
  brief& output(const step_info& of);
  /// What is asked in the end.
  brief& ask(std::string_view text);

  std::string text() const;

private:
  struct piece {
    std::string head;
    std::string body;
    std::string tail;
    bool may_be_cut = false;
  };
  std::vector<piece> pieces_;
};

/// A step of a request as an order of a kind: its own role, model and system prompt, else the
/// request's.
step_order order_of(const run_workflow& request, const workflow_step& step, std::string kind);

/// The name of a step, else its id.
std::string title_of(const workflow_step& step);

} // namespace berth
