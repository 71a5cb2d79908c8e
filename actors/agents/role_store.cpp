// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/role_store.hpp"

#include "store/durable.hpp"

#include <sys/stat.h>

namespace berth {

namespace {

constexpr const char* file_name = "roles_config.json";

/// A book of what ships and what a file changes of it; a file that is not there changes nothing.
expected<role_book> read_book(const std::string& path, std::shared_ptr<const settings> values,
                              std::shared_ptr<const config::ordered> shipped) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0 && errno == ENOENT)
    return role_book::open(std::move(values), std::move(shipped), "", path);
  auto data = read_whole(path, limits::roles_bytes_max);
  if (!data)
    return data.error();
  return role_book::open(std::move(values), std::move(shipped), {data->data(), data->size()}, path);
}

} // namespace

role_store::role_store(std::shared_ptr<const settings> values,
                       std::shared_ptr<const config::ordered> shipped, role_book book)
  : values_(std::move(values))
  , shipped_(std::move(shipped))
  , book_(std::move(book)) {}

expected<role_store> role_store::open(std::shared_ptr<const settings> values,
                                      std::shared_ptr<const config::ordered> shipped) {
  auto book = role_book::open(values, shipped, "", "");
  if (!book)
    return book.error();
  role_store made{std::move(values), std::move(shipped), std::move(*book)};
  if (error why = made.refresh())
    return why;
  return made;
}

std::string role_store::path() const {
  return values_->data_dir + "/" + file_name;
}

role_store::stamp role_store::look() const {
  struct stat facts {};
  if (::stat(path().c_str(), &facts) != 0)
    return {};
  return {.there = true,
          .inode = facts.st_ino,
          .size = static_cast<std::uint64_t>(facts.st_size),
          .changed_ns = facts.st_mtim.tv_sec * 1'000'000'000 + facts.st_mtim.tv_nsec};
}

error role_store::refresh() {
  stamp now = look();
  if (now == seen_)
    return {};
  seen_ = now; // before it is read: what is changed meanwhile is seen the next time
  auto fresh = read_book(path(), values_, shipped_);
  fault_ = fresh ? error{} : fresh.error();
  if (fresh) {
    fresh->remember(book_);
    book_ = std::move(*fresh);
  }
  return fault_;
}

error role_store::take(const expected<role_book>& changed) {
  if (!changed)
    return changed.error();
  if (fault_) // it would be overwritten, and with it somebody's work
    return fail(ec::conflict, to_refusal(fault_).detail + "; mend or remove the file first");
  std::string text = changed->changes_text();
  if (error why = replace_file(values_->data_dir, file_name, text))
    return why;
  if (error why = sync_directory(values_->data_dir))
    return why;
  book_ = *changed;
  seen_ = look();
  return {};
}

} // namespace berth
