// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/policy.hpp"
#include "messages/job.hpp"

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace berth {

/// The rules of a policy, ready to judge programs. Immutable: any thread may judge.
///
/// Shell programs are read as commands, so that a word in a comment or in an echoed text is no
/// alarm; in other languages only what is handed to a shell or to a new process counts, and what
/// removes whole trees. The rules find accidents and careless programs; they are no wall against a
/// clever one: the machine is.
class code_rules {
public:
  explicit code_rules(const vm_execution_policy& policy);
  ~code_rules();

  /// Judges a program in any spelling of a language's name. Takes time linear in its length.
  verdict judge(std::string_view code, std::string_view language) const;

  /// The reasons for which a program's patterns are dangerous, by canonical language, whatever the
  /// policy says.
  std::vector<std::string> find_dangers(std::string_view code, std::string_view language) const;

private:
  struct patterns;

  vm_execution_policy policy_;
  std::unique_ptr<const patterns> patterns_;
};

} // namespace berth
