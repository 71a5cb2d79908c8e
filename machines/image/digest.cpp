// SPDX-License-Identifier: Apache-2.0
#include "machines/image/digest.hpp"

#include "messages/fd.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <openssl/evp.h>
#include <vector>

namespace berth::machines {

namespace {

constexpr std::size_t block_bytes = std::size_t{1} << 20;

} // namespace

digest::digest()
  : context_(EVP_MD_CTX_new()) {
  EVP_DigestInit_ex(context_, EVP_sha256(), nullptr);
}

digest::~digest() {
  EVP_MD_CTX_free(context_);
}

void digest::add(std::string_view data) {
  EVP_DigestUpdate(context_, data.data(), data.size());
}

void digest::add_text(std::string_view text) {
  add(std::to_string(text.size()) + ":");
  add(text);
}

std::string digest::hex() {
  static constexpr std::string_view digits = "0123456789abcdef";
  std::array<unsigned char, EVP_MAX_MD_SIZE> sum{};
  unsigned size = 0;
  EVP_DigestFinal_ex(context_, sum.data(), &size);
  std::string text;
  for (unsigned i = 0; i < size; ++i) {
    text += digits[sum[i] >> 4];
    text += digits[sum[i] & 15];
  }
  return text;
}

std::string digest_of(std::string_view text) {
  digest sum;
  sum.add(text);
  return sum.hex();
}

expected<file_digest> digest_file(const std::string& path) {
  owned_fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file)
    return fail(ec::store_failed, "cannot open " + path + ": " + std::strerror(errno));
  digest sum;
  file_digest result;
  std::vector<char> block(block_bytes);
  while (true) {
    ssize_t got = ::read(file.get(), block.data(), block.size());
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return fail(ec::store_failed, "cannot read " + path + ": " + std::strerror(errno));
    if (got == 0)
      break;
    sum.add({block.data(), static_cast<std::size_t>(got)});
    result.bytes += static_cast<std::uint64_t>(got);
  }
  result.sha256 = sum.hex();
  return result;
}

} // namespace berth::machines
