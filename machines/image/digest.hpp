// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace berth::machines {

/// SHA-256 of what is added to it, piece by piece.
class digest {
public:
  digest();
  ~digest();
  digest(const digest&) = delete;
  digest& operator=(const digest&) = delete;

  void add(std::string_view data);
  /// Adds a text with its length, so that two texts are not one.
  void add_text(std::string_view text);
  /// 64 hexadecimal digits. Nothing is added after it.
  std::string hex();

private:
  evp_md_ctx_st* context_;
};

/// SHA-256 of a text.
std::string digest_of(std::string_view text);

/// SHA-256 of a whole file, and its size.
struct file_digest {
  std::string sha256;
  std::uint64_t bytes = 0;
};
expected<file_digest> digest_file(const std::string& path);

} // namespace berth::machines
