// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/settings.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace berth {

/// A kind of machines and an interpreter that is warm in them, as one name: the kind of the server
/// itself goes without saying, another stands before a slash. It is also how `pool.warm` names what
/// to keep ready: "python", "qemu/python", "qemu/".
struct flavour {
  std::string kind;
  std::string warm;

  /// Reads a name; `own` is the kind of one that says none.
  static flavour of(std::string_view name, std::string_view own);
  std::string name(std::string_view own) const;
};

/// Kinds that machine types name beside the server's own: they are served as far as they can be.
std::vector<std::string> other_kinds(const settings& values);

/// Of the kinds that are served, the first that keeps all that is asked for; the server's own is
/// first in the list. Where none does, the refusal says what is lacking: an isolation is never
/// lowered in silence.
expected<std::string> choose_kind(const std::vector<std::string>& served, std::string_view kind,
                                  std::string_view isolation, const vm_type& machine);

/// "namespace, qemu".
std::string list_kinds(const std::vector<std::string>& kinds);

} // namespace berth
