// SPDX-License-Identifier: Apache-2.0
#include "store/log_record.hpp"

#include "messages/codec.hpp"

#include <array>
#include <cstring>

namespace berth {

namespace {

/// Members of known size, at the front of every record.
struct record_front {
  std::uint8_t kind = 0;
  std::uint8_t state = 0;
  std::uint8_t failed = 0;
  std::uint8_t unused[5] = {};
  std::uint64_t number = 0;
  std::int64_t submitted_at_ms = 0;
};
static_assert(sizeof(record_front) == 24);

/// Texts that follow, each behind its size.
constexpr std::size_t texts = 8;

std::span<const char> chars(std::string_view text) {
  return {text.data(), text.size()};
}

std::string_view text_of(std::span<const char> data) {
  return {data.data(), data.size()};
}

bool has_failed(const outcome& ended) {
  return is_terminal(ended.state)
         && (ended.state != job_state::exited || ended.exit_code.value_or(-1) != 0);
}

bytes pack(const record_view& record) {
  record_front front{.kind = static_cast<std::uint8_t>(record.kind),
                     .state = static_cast<std::uint8_t>(record.state),
                     .failed = record.failed,
                     .number = record.number,
                     .submitted_at_ms = record.submitted_at_ms};
  const std::array<std::span<const char>, texts> parts{
      chars(record.id),       chars(record.agent), chars(record.session), chars(record.machine),
      chars(record.language), chars(record.code),  record.request,        record.result};
  std::size_t size = sizeof front;
  for (const auto& part : parts)
    size += sizeof(std::uint32_t) + part.size();
  bytes made(size);
  char* to = made.data();
  auto put = [&](const void* from, std::size_t count) {
    if (count > 0)
      std::memcpy(to, from, count);
    to += count;
  };
  put(&front, sizeof front);
  for (const auto& part : parts) {
    auto length = static_cast<std::uint32_t>(part.size());
    put(&length, sizeof length);
    put(part.data(), part.size());
  }
  return made;
}

} // namespace

bytes accepted_record(std::uint64_t number, const job_order& order, bool content) {
  stored_request request{
      .args = {}, .limits = order.limits, .metadata = {}, .verdict = {}, .kind = order.kind};
  if (order.verdict != verdict{})
    request.verdict = order.verdict;
  if (content) {
    request.args = order.request.args;
    request.metadata = order.request.metadata;
  } else if (request.verdict) {
    request.verdict->code.clear();
  }
  bytes packed = encode(request);
  return pack({.kind = record_kind::accepted,
               .state = job_state::queued,
               .number = number,
               .submitted_at_ms = order.submitted_at_ms,
               .id = order.job,
               .agent = order.request.agent_id,
               .session = order.request.session,
               .language = order.request.language,
               .code = content ? std::string_view{order.request.code} : std::string_view{},
               .request = packed});
}

bytes ended_record(std::uint64_t number, const outcome& ended) {
  bytes packed = encode(ended);
  return pack({.kind = record_kind::ended,
               .state = ended.state,
               .failed = has_failed(ended),
               .number = number,
               .submitted_at_ms = ended.submitted_at_ms,
               .id = ended.job,
               .agent = ended.agent_id,
               .session = ended.session,
               .machine = ended.machine,
               .language = ended.language,
               .result = packed});
}

bytes session_record(const session_info& session) {
  bytes packed = encode(session);
  return pack({.kind = record_kind::session,
               .id = session.session,
               .agent = session.agent_id,
               .language = name_of(session.state),
               .result = packed});
}

std::optional<record_view> read_record(std::span<const char> payload) {
  record_front front;
  if (payload.size() < sizeof front)
    return std::nullopt;
  std::memcpy(&front, payload.data(), sizeof front);
  payload = payload.subspan(sizeof front);
  bool known = front.kind >= static_cast<std::uint8_t>(record_kind::accepted)
               && front.kind <= static_cast<std::uint8_t>(record_kind::session)
               && front.state < job_state_names.size();
  if (!known)
    return std::nullopt;
  std::array<std::span<const char>, texts> parts;
  for (auto& part : parts) {
    std::uint32_t length = 0;
    if (payload.size() < sizeof length)
      return std::nullopt;
    std::memcpy(&length, payload.data(), sizeof length);
    payload = payload.subspan(sizeof length);
    if (payload.size() < length)
      return std::nullopt;
    part = payload.first(length);
    payload = payload.subspan(length);
  }
  return record_view{.kind = static_cast<record_kind>(front.kind),
                     .state = static_cast<job_state>(front.state),
                     .failed = front.failed != 0,
                     .number = front.number,
                     .submitted_at_ms = front.submitted_at_ms,
                     .id = text_of(parts[0]),
                     .agent = text_of(parts[1]),
                     .session = text_of(parts[2]),
                     .machine = text_of(parts[3]),
                     .language = text_of(parts[4]),
                     .code = text_of(parts[5]),
                     .request = parts[6],
                     .result = parts[7]};
}

} // namespace berth
