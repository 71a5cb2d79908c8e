// SPDX-License-Identifier: Apache-2.0
#include "bridge/zmq/envelope.hpp"
#include "messages/guest.hpp"
#include "messages/operations.hpp"

#include <catch2/catch.hpp>

#include <fstream>
#include <sstream>

using namespace berth;

namespace {

const std::string& document() {
  static const std::string text = [] {
    std::ifstream file{BERTH_SOURCE_DIR "/docs/protocol.md"};
    std::ostringstream all;
    all << file.rdbuf();
    return all.str();
  }();
  return text;
}

/// The bytes that the document shows after a line: hexadecimal up to a `#`, indented.
std::string shown_after(const std::string& heading) {
  auto at = document().find("\n" + heading);
  REQUIRE(at != std::string::npos);
  std::istringstream rest{document().substr(document().find("\n\n", at) + 2)};
  std::string data;
  for (std::string line; std::getline(rest, line) && line.starts_with("    ");) {
    std::string digits;
    for (char c : line.substr(0, line.find('#')))
      if (c != ' ')
        digits += c;
    for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
      data += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  }
  return data;
}

std::string text_of(const bytes& data) {
  return {data.begin(), data.end()};
}

std::string text_of(const zmq::message_t& data) {
  return data.to_string();
}

const std::string id{"\x01", 1};
const std::string job = "0190d7a8-0000-7000-8000-000000000001";

} // namespace

TEST_CASE("The document's request is read as what it says") {
  std::string data = shown_after("A `run` request:");
  auto tree = object_tree::parse(data);
  REQUIRE(tree);
  zmq_call call = read_call(tree->root());
  CHECK(call.why.code == 0);
  CHECK(call.id == id);
  CHECK(call.op == "run");
  REQUIRE(call.body != nullptr);
  auto asked = decode<run>(*call.body);
  REQUIRE(asked);
  run wanted;
  wanted.code = "print(1)";
  wanted.language = "python";
  CHECK(*asked == wanted);
}

TEST_CASE("The document's reply has the bytes that are sent") {
  outcome ended{.job = job,
                .state = job_state::exited,
                .exit_code = 0,
                .stdout_data = {'1', '\n'},
                .stdout_bytes = 2,
                .wall_us = 1200,
                .cpu_us = 900,
                .memory_peak_bytes = 4194304,
                .language = "python",
                .path = run_path::warm,
                .machine = "vm-0123456789ab",
                .machine_kind = "namespace",
                .submitted_at_ms = 1760000000000,
                .started_at_ms = 1760000000000,
                .ended_at_ms = 1760000000001};
  CHECK(text_of(encode_reply(id, ended)) == shown_after("The reply to it:"));
}

TEST_CASE("The document's refusal has the bytes that are sent") {
  refusal why = zmq_refusal(ec::no_capacity, "full");
  why.retry_after_ms = 250;
  CHECK(text_of(encode_refusal(id, why)) == shown_after("A refusal:"));
}

TEST_CASE("The document's output event has the bytes that are published") {
  output_event event{.job = job, .offset = 0, .data = {'1', '\n'}};
  CHECK(text_of(encode(event)) == shown_after("An output event,"));
}

TEST_CASE("The document's guest frame has the bytes that are sent") {
  guest::output frame{.job = 1, .stream = 2, .data = {'h', 'i', '\xff'}};
  CHECK(text_of(guest::encode_frame(frame)) == shown_after("A frame of output,"));
}

TEST_CASE("The document lists every operation, every member and every error") {
  description all = make_description();
  for (const auto& each : all.operations) {
    INFO(each.op);
    CHECK(document().find("### `" + each.op + "`\n\n" + each.meaning) != std::string::npos);
  }
  for (const auto& type : all.types)
    for (const auto& member : type.fields_of) {
      INFO(type.name << "." << member.name << ": run docs/protocol_tables.py");
      std::string need = member.required ? " | required | " : " |  | ";
      CHECK(document().find(need + member.meaning + " |\n") != std::string::npos);
      CHECK(document().find("| `" + member.name + "` | ") != std::string::npos);
    }
  for (const auto& each : all.errors)
    CHECK(document().find("| " + std::to_string(each.code) + " | `" + each.name + "` |")
          != std::string::npos);
}
