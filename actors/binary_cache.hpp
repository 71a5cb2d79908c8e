// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fields.hpp"

#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

namespace berth {

/// Compiled programs by their exact source, least recently used out first. Filled only from fresh
/// one-shot machines before any user code ran in them, so a binary is a function of its source; a
/// job receives the binary of its own source and nothing else. Plain logic, bounded memory.
class binary_cache {
public:
  explicit binary_cache(std::size_t bytes_max)
    : bytes_max_(bytes_max) {}

  /// Whether a program's binary depends on its source alone: nothing it includes at compile time
  /// may come from elsewhere in the machine.
  static bool cacheable(std::string_view language, std::string_view code) {
    auto has = [&](std::string_view what) { return code.find(what) != std::string_view::npos; };
    if (language == "rust")
      return !has("include") && !has("env!") && !has("#[path") && !has("proc_macro")
             && !has_outer_module(code);
    if (language == "go")
      return !has("go:embed") && !has("\"C\"") && !has("go:linkname");
    return false;
  }

  /// The binary of a source; null when unknown.
  const bytes* find(const std::string& language, const std::string& code) {
    auto found = index_.find(key(language, code));
    if (found == index_.end())
      return nullptr;
    order_.splice(order_.begin(), order_, found->second);
    return &found->second->binary;
  }

  /// Keeps a binary; what does not fit at all is not kept.
  void keep(const std::string& language, const std::string& code, bytes binary) {
    std::string name = key(language, code);
    std::size_t size = name.size() + binary.size();
    if (size > bytes_max_ / 4 || index_.contains(name))
      return;
    order_.push_front({name, std::move(binary)});
    index_[std::move(name)] = order_.begin();
    bytes_ += size;
    while (bytes_ > bytes_max_) {
      bytes_ -= order_.back().name.size() + order_.back().binary.size();
      index_.erase(order_.back().name);
      order_.pop_back();
    }
  }

  std::size_t size_bytes() const { return bytes_; }

private:
  /// Whether Rust code names a module that is in another file: `mod name;`.
  static bool has_outer_module(std::string_view code) {
    constexpr std::string_view word = "mod ";
    for (auto at = code.find(word); at != code.npos; at = code.find(word, at + 1)) {
      auto end = code.find_first_of(";{(\n", at);
      if (end != code.npos && code[end] == ';')
        return true;
    }
    return false;
  }

  struct item {
    std::string name;
    bytes binary;
  };

  static std::string key(const std::string& language, const std::string& code) {
    return language + '\0' + code;
  }

  std::size_t bytes_max_;
  std::size_t bytes_ = 0;
  std::list<item> order_;
  std::unordered_map<std::string, std::list<item>::iterator> index_;
};

} // namespace berth
