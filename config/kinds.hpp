// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/settings.hpp"

#include <string>
#include <string_view>
#include <vector>

/// Which machines serve whom. A *make* of machines is a kind, and of virtual machines with another
/// image or other processors than the settings' own also these: "namespace", "qemu",
/// "qemu:science", "qemu:science:2", "qemu::2". Machines with a network are a make by the name of
/// the first machine type with the same places: "namespace@pip", "qemu:science@pip".
namespace berth {

/// The make that a machine type asks for; empty when the server's own will do.
std::string make_of(const vm_type& type, const settings& values);
/// "qemu" of "qemu:science:2@pip".
std::string_view kind_of(std::string_view make);
/// "qemu:science:2" of it: the same machines without a network.
std::string_view without_network(std::string_view make);

/// A make of machines and an interpreter that is warm in them, as one name: the make of the server
/// itself goes without saying, another stands before a slash. It is also how `pool.warm` names what
/// to keep ready: "python", "qemu/python", "qemu:science/".
struct flavour {
  std::string make;
  std::string warm;

  /// Reads a name; `own` is the make of one that says none.
  static flavour of(std::string_view name, std::string_view own);
  std::string name(std::string_view own) const;
};

/// Makes that machine types ask for beside the server's own: they are served as far as they can be.
std::vector<std::string> other_makes(const settings& values);

/// Of the makes that are served, the first that keeps all that is asked for; the server's own is
/// first in the list. Where none does, the refusal says what is lacking: nothing that was asked for
/// is lowered in silence.
expected<std::string> choose_make(const std::vector<std::string>& served, std::string_view kind,
                                  std::string_view isolation, const vm_type& machine,
                                  const settings& values);

/// Their kinds, each once: "namespace, qemu".
std::string list_kinds(const std::vector<std::string>& makes);

} // namespace berth
