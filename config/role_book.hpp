// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/reader.hpp"
#include "config/settings.hpp"
#include "messages/roles.hpp"

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace berth {

/// The roles' configuration at one moment: what ships, overlaid by what was changed of it. A book
/// never changes; a change makes another one, which holds once its changes are on disk. Knows no
/// file.
///
/// Changes are a JSON object with only what differs: members of the configuration; in `roles` each
/// role that is new or was changed, whole, and null for one that is gone; `berth_order`, when the
/// roles stand in another order. So roles that nobody touched follow the next version of Berth.
///
/// A secret (config::is_secret_name) is kept and never given out: public_text() has a mark in its
/// place that names where it stands, and replaced() puts it back where it finds the mark.
///
/// Clients read the whole configuration, change a member and post the whole again, several at once.
/// public_text() therefore bears a revision, and what is posted with an older one is joined with
/// what others changed since; of a member that both changed, the one posted last holds.
class role_book {
public:
  /// Opens a configuration that ships, with changes; empty text: none. `name` stands for the
  /// changes in errors.
  static expected<role_book> open(std::shared_ptr<const settings> values,
                                  std::shared_ptr<const config::ordered> shipped,
                                  std::string_view changes, const std::string& name);

  /// A role by its name or short name, whatever the case of A to Z; empty: the selected one. Names
  /// win over short names, and of equal short names the first.
  expected<role_info> find(std::string_view name) const;

  /// All roles in their order, or the one asked for.
  expected<role_list> list(const std::string& role) const;

  /// The whole configuration as clients see it. One line.
  const std::string& public_text() const { return public_text_; }

  /// The book with another configuration in place of this one, or why it cannot be. Without a
  /// revision, or with one that is long gone, what is posted holds as it is.
  expected<role_book> replaced(std::string_view text) const;

  /// The book with another role selected.
  expected<role_book> selected(std::string_view role) const;

  /// Keeps the configurations that clients of an earlier book may have read.
  void remember(const role_book& before);

  /// What differs from what ships, as open() reads it.
  std::string changes_text() const;

private:
  /// What a client may have read, and change now.
  struct past {
    std::string revision;
    /// JSON.
    std::shared_ptr<const std::string> config;
  };

  role_book() = default;
  expected<config::ordered> joined(config::ordered posted, const std::string& name) const;
  /// Takes over a configuration that was checked.
  void fill(std::shared_ptr<const settings> values, std::shared_ptr<const config::ordered> shipped,
            config::ordered config);
  const role_info* look_up(std::string_view name) const;

  std::shared_ptr<const settings> values_;
  std::shared_ptr<const config::ordered> shipped_;
  config::ordered config_;
  std::string revision_;
  std::string public_text_;
  /// Newest last.
  std::deque<past> past_;
  std::vector<role_info> roles_;
  /// Names and short names in lower case, to places in `roles_`.
  std::map<std::string, std::size_t, std::less<>> by_name_;
  std::size_t default_ = 0;
  std::size_t selected_ = 0;
};

} // namespace berth
