// SPDX-License-Identifier: Apache-2.0
#include "messages/errors.hpp"
#include "messages/guest.hpp"

#include <catch2/catch.hpp>

using namespace berth;

namespace {

/// Bytes of hex, blanks and the texts in quotes between them as they are.
bytes golden(std::string_view text) {
  bytes all;
  std::string digits;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\'') {
      std::size_t end = text.find('\'', i + 1);
      all.insert(all.end(), text.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                 text.begin() + static_cast<std::ptrdiff_t>(end));
      i = end;
    } else if (text[i] != ' ') {
      digits += text[i];
      if (digits.size() == 2) {
        all.push_back(static_cast<char>(std::stoi(digits, nullptr, 16)));
        digits.clear();
      }
    }
  }
  return all;
}

bytes joined(std::initializer_list<bytes> frames) {
  bytes all;
  for (const bytes& frame : frames)
    all.insert(all.end(), frame.begin(), frame.end());
  return all;
}

} // namespace

TEST_CASE("A refusal has these bytes") {
  refusal message{.code = 6, .name = "no_capacity", .detail = "full", .retry_after_ms = 250};
  bytes wire = golden("84"                         // a map of 4
                      "a4'code' 06"                // code: 6
                      "a4'name' ab'no_capacity'"   // name
                      "a6'detail' a4'full'"        // detail
                      "ae'retry_after_ms' cc fa"); // retry_after_ms: 250
  CHECK(encode(message) == wire);
  CHECK(*decode<refusal>(wire) == message);
}

TEST_CASE("A frame of output has these bytes") {
  guest::output message{.job = 1, .stream = 2, .data = {'h', 'i', '\xff'}};
  bytes wire = golden("24 00 00 00"              // length 36, little-endian
                      "84"                       // a map of 4
                      "a4'type' a6'output'"      // type, always first
                      "a3'job' 01"               // job: 1
                      "a6'stream' 02"            // stream: standard error
                      "a4'data' c4 03 'hi' ff"); // data: 3 bytes
  CHECK(guest::encode_frame(message) == wire);
}

TEST_CASE("A frame that starts a job has these bytes") {
  guest::start_job message{.job = 7,
                           .language = "python",
                           .code = "1",
                           .args = {"a"},
                           .env = {{"K", "v"}},
                           .cwd = "/work",
                           .stdin_open = true,
                           .output_bytes = 65536,
                           .exclusive = false,
                           .binary = {},
                           .want_binary = false};
  bytes body = golden("8c"                           // a map of 12
                      "a4'type' a9'start_job'"       // type
                      "a3'job' 07"                   // job: 7
                      "a8'language' a6'python'"      // language
                      "a4'code' a1'1'"               // code
                      "a4'args' 91 a1'a'"            // args: a list of 1
                      "a3'env' 81 a1'K' a1'v'"       // env: a map of 1
                      "a3'cwd' a5'/work'"            // cwd
                      "aa'stdin_open' c3"            // stdin_open: true
                      "ac'output_bytes' ce 00010000" // output_bytes: 65536
                      "a9'exclusive' c2"             // exclusive: false
                      "a6'binary' c4 00"             // binary: none
                      "ab'want_binary' c2");         // want_binary: false
  CHECK(encode_tagged(message) == body);
  auto back = guest::decode_frame<guest::to_guest>(body);
  REQUIRE(back);
  CHECK(std::get<guest::start_job>(*back) == message);
}

TEST_CASE("A request to run and its outcome keep their members' names and order") {
  auto names = [](const auto& message) {
    auto tree = object_tree::parse(encode(message));
    REQUIRE(tree);
    std::string all;
    for (std::uint32_t i = 0; i < tree->root().via.map.size; ++i)
      all += tree->root().via.map.ptr[i].key.template as<std::string>() + " ";
    return all;
  };
  CHECK(names(run{})
        == "code language args env cwd stdin stdin_open files timeout_ms memory_mib "
           "processes output_bytes disk_mib agent_id session one_shot vm_type kind isolation "
           "kernel context "
           "metadata ");
  CHECK(names(outcome{})
        == "job state exit_code signal stdout stderr stdout_bytes stderr_bytes "
           "stdout_truncated stderr_truncated wall_us cpu_us memory_peak_bytes "
           "language path agent_id session machine machine_kind submitted_at_ms "
           "started_at_ms ended_at_ms verdict redacted detail context cell "
           "snapshot_before snapshot_after rolled_back_to ");
}

TEST_CASE("Frames are cut out of a stream whatever its pieces") {
  bytes stream = joined({guest::encode_frame(guest::pong{.request = 1}),
                         guest::encode_frame(guest::output{.job = 2, .data = bytes(300, 'x')}),
                         guest::encode_frame(guest::pong{.request = 3})});
  for (std::size_t piece = 1; piece <= stream.size(); ++piece) {
    guest::frame_cutter cutter;
    std::vector<guest::from_guest> got;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      cutter.push(std::span<const char>{stream}.subspan(at, std::min(piece, stream.size() - at)));
      while (auto body = cutter.next()) {
        auto message = guest::decode_frame<guest::from_guest>(*body);
        REQUIRE(message);
        got.push_back(*message);
      }
    }
    REQUIRE(got.size() == 3);
    CHECK(std::get<guest::pong>(got[0]).request == 1);
    CHECK(std::get<guest::output>(got[1]).data.size() == 300);
    CHECK(std::get<guest::pong>(got[2]).request == 3);
    CHECK_FALSE(cutter.broken());
  }
}

TEST_CASE("A frame beyond the limit, or an empty one, breaks the stream for good") {
  auto head = GENERATE(values<bytes>({{'\x01', '\x00', '\x40', '\x00'},
                                      {'\xff', '\xff', '\xff', '\xff'},
                                      {'\x00', '\x00', '\x00', '\x00'}}));
  guest::frame_cutter cutter;
  cutter.push(head);
  CHECK_FALSE(cutter.next());
  CHECK(cutter.broken());
  cutter.push(guest::encode_frame(guest::pong{}));
  CHECK_FALSE(cutter.next());
  CHECK(cutter.broken());
}

TEST_CASE("A frame of another side or of no known type is refused") {
  CHECK_FALSE(guest::decode_frame<guest::from_guest>(encode_tagged(guest::ping{.request = 1})));
  CHECK_FALSE(guest::decode_frame<guest::from_guest>(encode(guest::pong{.request = 1})));
  CHECK_FALSE(guest::decode_frame<guest::from_guest>(bytes{'\x01'}));
  auto missing = guest::decode_frame<guest::from_guest>(golden("81 a4'type' a4'pong'"));
  REQUIRE_FALSE(missing);
  CHECK(missing.why().text() == "request: pong: is missing");
}
