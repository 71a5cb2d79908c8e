// SPDX-License-Identifier: Apache-2.0
#include "tests/guest/machine.hpp"
#include "tests/support/skip.hpp"

#include <catch2/catch.hpp>
#include <sys/socket.h>

#include <algorithm>
#include <random>

using namespace berth;
using namespace berth::test;

namespace {

bool skipped() {
  static const std::string reason = no_machine_reason();
  if (!reason.empty())
    skip(reason);
  return !reason.empty();
}

/// What ends a guest is its own decision (0 or 65), never a crash.
void check_orderly_end(machine& box) {
  int code = box.wait();
  CHECK((code == 0 || code == 65));
}

} // namespace

TEST_CASE("a guest says hello first, with the languages it has") {
  if (skipped())
    return;
  machine box;
  auto hello = box.expect<guest::hello>();
  CHECK(hello.version == guest::protocol_version);
  CHECK(std::find(hello.languages.begin(), hello.languages.end(), "bash") != hello.languages.end());
  box.send(guest::ping{42});
  CHECK(box.expect<guest::pong>().request == 42);
}

TEST_CASE("a guest whose server is gone ends, and all in the machine with it") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  box.send(box.job("bash", "sleep 1000"));
  box.expect<guest::job_started>();
  shutdown(box.channel(), SHUT_WR);
  CHECK(box.wait() == 0);
}

TEST_CASE("no bytes crash a guest") {
  if (skipped())
    return;
  std::mt19937 random{20261123};
  for (int round = 0; round < 40; ++round) {
    machine box;
    box.expect<guest::hello>();
    bytes noise(1 + random() % 4000);
    for (char& c : noise)
      c = static_cast<char>(random());
    bool framed = round % 2 == 0;
    if (framed) {
      bytes head{static_cast<char>(noise.size() & 0xFF), static_cast<char>(noise.size() >> 8), 0,
                 0};
      noise.insert(noise.begin(), head.begin(), head.end());
    }
    box.send_bytes(noise);
    shutdown(box.channel(), SHUT_WR);
    check_orderly_end(box);
  }
}

TEST_CASE("no altered frame crashes a guest") {
  if (skipped())
    return;
  std::mt19937 random{1};
  for (int round = 0; round < 60; ++round) {
    machine box;
    box.expect<guest::hello>();
    auto start = box.job("bash", "echo x");
    start.args = {"a", "b"};
    start.env["K"] = "V";
    guest::put_file file;
    file.path = "x";
    file.cwd = "/mnt";
    file.data = bytes(10, 'x');
    for (bytes frame : {guest::encode_frame(start), guest::encode_frame(file),
                        guest::encode_frame(guest::stdin_data{1, bytes(5, 'x'), false}),
                        guest::encode_frame(guest::get_file{1, "/mnt/x", 0, 100})}) {
      frame[4 + random() % (frame.size() - 4)] = static_cast<char>(random());
      box.send_bytes(frame);
    }
    shutdown(box.channel(), SHUT_WR);
    check_orderly_end(box);
  }
}

TEST_CASE("frames about jobs that are not there are of no account") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  box.send(guest::end_job{77});
  box.send(guest::stdin_data{77, bytes(100, 'x'), true});
  box.send(guest::ping{1});
  CHECK(box.expect<guest::pong>().request == 1);
}

TEST_CASE("a frame that is too large ends the guest") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  box.send_bytes({'\0', '\0', '\0', '\x7F'});
  CHECK(box.wait() == 65);
}

TEST_CASE("more input than there is room for ends the guest") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto start = box.job("bash", "sleep 1000");
  start.stdin_open = true;
  box.send(start);
  for (int i = 0; i < 8; ++i)
    box.send(guest::stdin_data{start.job, bytes(1 << 20, 'x'), false});
  CHECK(box.wait() == 65);
}
