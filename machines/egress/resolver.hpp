// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/egress/policy.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace berth::machines::egress {

/// What a name leads to, or why to nothing.
struct lookup_result {
  std::vector<resolved> addresses;
  std::string error;
};

/// Looks a name up on this host, as its own programs do; waits for the answer. Search domains are
/// not tried: what is looked up is the name that was checked.
lookup_result look_up(const std::string& name);

/// Looks names up on threads of its own, for whoever may not wait.
class resolver {
public:
  using lookup = std::function<lookup_result(const std::string&)>;
  /// Called on one of the threads; hands over and returns.
  using handler = std::function<void(lookup_result)>;

  explicit resolver(lookup by = look_up);
  /// No handler is called any more. A thread that waits for an answer is left to itself: it has
  /// nothing but its own.
  ~resolver();
  resolver(const resolver&) = delete;
  resolver& operator=(const resolver&) = delete;

  /// False: too many wait already; the handler is not called then.
  bool ask(const std::string& name, handler then);

private:
  struct shared;
  static void run(const std::shared_ptr<shared>& of);
  const std::shared_ptr<shared> shared_;
};

} // namespace berth::machines::egress
