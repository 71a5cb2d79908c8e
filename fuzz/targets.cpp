// SPDX-License-Identifier: Apache-2.0
#include "fuzz/targets.hpp"

#include "actors/code_rules.hpp"
#include "actors/redaction.hpp"
#include "config/settings.hpp"
#include "messages/codec.hpp"
#include "messages/types.hpp"

#include <cstdlib>

namespace berth::fuzz {

namespace {

void hold(bool promise) {
  if (!promise)
    std::abort();
}

template <class T>
void decode_as(const object_tree& tree) {
  auto message = decode<T>(tree.root());
  if (!message) {
    hold(!message.why().reason.empty());
    return;
  }
  bytes again = encode(*message);
  auto back = decode<T>(again);
  hold(static_cast<bool>(back) && encode(*back) == again);
}

template <class... Ts>
void decode_all(type_list<Ts...>, const object_tree& tree) {
  (..., decode_as<Ts>(tree));
}

} // namespace

void messages(std::span<const char> data) {
  auto tree = object_tree::parse(data);
  if (!tree)
    return;
  decode_all(client_types{}, *tree);
  decode_all(internal_types{}, *tree);
  decode_all(guest_types{}, *tree);
}

void frames(std::span<const char> data) {
  guest::frame_cutter cutter;
  std::size_t piece = data.empty() ? 1 : 1 + static_cast<unsigned char>(data.front());
  for (std::size_t at = 0; at < data.size(); at += piece) {
    cutter.push(data.subspan(at, std::min(piece, data.size() - at)));
    while (auto body = cutter.next()) {
      hold(!body->empty() && body->size() <= limits::frame_bytes_max);
      (void)guest::decode_frame<guest::from_guest>(*body);
      (void)guest::decode_frame<guest::to_guest>(*body);
    }
  }
}

void settings_file(std::span<const char> data) {
  auto values = parse_settings({data.data(), data.size()}, "fuzz");
  if (values)
    hold(!check(*values));
  else
    hold(!describe_error(values.error()).empty());
}

void programs(std::span<const char> data) {
  static const code_rules rules{vm_execution_policy{}};
  std::string_view code{data.data(), data.size()};
  for (const char* language : {"bash", "python", "javascript", "rust", "go"})
    (void)rules.judge(code, language);
  bytes output{data.begin(), data.end()};
  bool changed = redact(output);
  hold(changed || std::equal(output.begin(), output.end(), data.begin(), data.end()));
}

} // namespace berth::fuzz
