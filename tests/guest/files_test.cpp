// SPDX-License-Identifier: Apache-2.0
#include "tests/guest/machine.hpp"
#include "tests/support/skip.hpp"

#include <catch2/catch.hpp>

using namespace berth;
using namespace berth::test;

namespace {

bool skipped() {
  static const std::string reason = no_machine_reason();
  if (!reason.empty())
    skip(reason);
  return !reason.empty();
}

std::string put(machine& box, guest::put_file request) {
  request.request = 7;
  box.send(request);
  auto answer = box.expect<guest::file_put>();
  REQUIRE(answer.request == 7);
  return answer.error;
}

guest::file_data get(machine& box, std::string path, std::uint64_t offset = 0,
                     std::uint32_t bytes_max = 1 << 20) {
  box.send(guest::get_file{3, std::move(path), offset, bytes_max});
  return box.expect<guest::file_data>();
}

guest::put_file file(std::string path, std::string_view data, std::uint64_t offset = 0) {
  guest::put_file request;
  request.path = std::move(path);
  request.cwd = "/mnt";
  request.offset = offset;
  request.data.assign(data.begin(), data.end());
  return request;
}

} // namespace

TEST_CASE("a file is written in chunks, with its parents, and read back") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto first = file("a/b c/\xC3\xA9\n.txt", "hello ");
  first.mode = 0750;
  CHECK(put(box, first).empty());
  CHECK(put(box, file("a/b c/\xC3\xA9\n.txt", "world", 6)).empty());
  auto read = get(box, "/mnt/a/b c/\xC3\xA9\n.txt");
  CHECK(std::string(read.data.begin(), read.data.end()) == "hello world");
  CHECK(read.size == 11);
  CHECK(read.eof);
  read = get(box, "/mnt/a/b c/\xC3\xA9\n.txt", 6, 3);
  CHECK(std::string(read.data.begin(), read.data.end()) == "wor");
  CHECK(!read.eof);
  CHECK(box.run(box.job("bash", "stat -c %a a/b*/*")).out == "750\n");
  CHECK(put(box, file("a/b c/\xC3\xA9\n.txt", "new")).empty());
  CHECK(get(box, "/mnt/a/b c/\xC3\xA9\n.txt").size == 3);
}

TEST_CASE("only regular files are written or read, and nothing is waited for") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  REQUIRE(box.run(box.job("bash", "mkfifo pipe; ln -s /etc/hostname link; mkdir dir; : > file"))
              .exit_code()
          == 0);
  for (const char* path :
       {"pipe", "link", "dir", "/dev/null", "/dev/zero", "/proc/self/fd/3",
        "/proc/self/oom_score_adj", "/dev/fd/3", "file/below", "dir/", "", "/usr/bin/new"}) {
    CAPTURE(path);
    CHECK(put(box, file(path, "x")) != "");
  }
  for (const char* path : {"/mnt/pipe", "/mnt/link", "/mnt/dir", "/dev/zero", "/proc/self/fd/3",
                           "/proc/self/environ", "/dev/fd/0", "/none"}) {
    CAPTURE(path);
    CHECK(get(box, path).error != "");
  }
  CHECK(put(box, file("link", "x")).find("symbolic link") != std::string::npos);
  CHECK(put(box, file(std::string("a\0b", 3), "x")) == "the path contains a NUL byte");
  CHECK(put(box, file("far", "x", ~std::uint64_t{0})).find("File too large") != std::string::npos);
  CHECK(get(box, "/none").error == "/none: No such file or directory");
}
