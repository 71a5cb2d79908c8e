// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/role_book.hpp"

namespace berth {

/// The roles' configuration and its file, `<data_dir>/roles_config.json`: what holds is on disk,
/// and what comes to be there by an editor's hand comes to hold, if it can. For one thread; writes
/// and syncs.
class role_store {
public:
  static expected<role_store> open(std::shared_ptr<const settings> values,
                                   std::shared_ptr<const config::ordered> shipped);

  const role_book& book() const { return book_; }

  /// Makes a change of book() durable, and only then has it hold.
  error take(const expected<role_book>& changed);

  /// Looks whether the file was changed by somebody else. What cannot be used is an error, told
  /// once by each change of the file; what held before goes on to hold.
  error refresh();

private:
  /// Tells one version of the file from another.
  struct stamp {
    bool there = false;
    std::uint64_t inode = 0;
    std::uint64_t size = 0;
    std::int64_t changed_ns = 0;
    bool operator==(const stamp&) const = default;
  };

  role_store(std::shared_ptr<const settings> values, std::shared_ptr<const config::ordered> shipped,
             role_book book);
  std::string path() const;
  stamp look() const;

  std::shared_ptr<const settings> values_;
  std::shared_ptr<const config::ordered> shipped_;
  role_book book_;
  stamp seen_;
  /// What is wrong with the file as it was seen last.
  error fault_;
};

} // namespace berth
