// SPDX-License-Identifier: Apache-2.0
#include "messages/path_text.hpp"
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

guest::file_put put_all(machine& box, guest::put_file request) {
  request.request = 7;
  box.send(request);
  return box.expect<guest::file_put>();
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

/// Asks for one thing that is answered by path_done.
template <class Request>
guest::path_done done(machine& box, Request request) {
  request.request = 9;
  box.send(request);
  auto answer = box.expect<guest::path_done>();
  REQUIRE(answer.request == 9);
  return answer;
}

guest::dir_listed list(machine& box, std::string path, std::uint32_t depth = 1) {
  box.send(guest::list_dir{4, std::move(path), depth});
  return box.expect<guest::dir_listed>();
}

std::vector<std::string> names(const guest::dir_listed& listed) {
  std::vector<std::string> all;
  for (const auto& each : listed.entries)
    all.push_back(each.path);
  return all;
}

void shell(machine& box, std::string code) {
  INFO(code);
  auto result = box.run(box.job("bash", std::move(code)));
  INFO(result.err);
  REQUIRE(result.exit_code() == 0);
}

/// Events of watches as text, one a line, until `last` is among them.
std::string changes_until(machine& box, const std::string& last) {
  std::string all;
  while (all.find(last) == std::string::npos) {
    auto frame = box.next();
    REQUIRE(frame);
    if (auto* changed = std::get_if<guest::files_changed>(&*frame))
      for (const auto& each : changed->events)
        all += each.watch + " " + std::string{name_of(each.change)} + " " + each.path + "\n";
  }
  return all;
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
  shell(box,
        "mkfifo pipe; mkdir dir; ln -s dir dirlink; ln -s nowhere/at/all loose; ln -s ring ring;"
        "ln -s /proc/self/fd/3 channel; ln -s /proc/self/environ env; : > file;"
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'");
  using refusal = std::pair<const char*, ec>;
  for (auto [path, code] : {refusal{"pipe", ec::rejected},
                            {"sock", ec::rejected},
                            {"/dev/null", ec::rejected},
                            {"/dev/zero", ec::rejected},
                            {"/proc/self/fd/3", ec::rejected},
                            {"/proc/self/oom_score_adj", ec::rejected},
                            {"/dev/fd/3", ec::rejected},
                            {"channel", ec::rejected},
                            {"env", ec::rejected},
                            {"ring", ec::rejected},
                            {"loose", ec::conflict},
                            {"dir", ec::conflict},
                            {"dir/", ec::conflict},
                            {"dirlink", ec::conflict},
                            {"file/below", ec::conflict},
                            {"", ec::malformed},
                            {"/usr/bin/new", ec::rejected}}) {
    CAPTURE(path);
    CHECK(put_all(box, file(path, "x")).failure == code);
  }
  for (auto [path, code] : {refusal{"/mnt/pipe", ec::rejected},
                            {"/mnt/sock", ec::rejected},
                            {"/mnt/dir", ec::conflict},
                            {"/mnt/env", ec::rejected},
                            {"/mnt/loose", ec::not_found},
                            {"/dev/zero", ec::rejected},
                            {"/proc/self/fd/3", ec::rejected},
                            {"/proc/self/environ", ec::rejected},
                            {"/dev/fd/0", ec::rejected},
                            {"/none", ec::not_found}}) {
    CAPTURE(path);
    CHECK(get(box, path).failure == code);
  }
  CHECK(put(box, file("pipe", "x")) == "/mnt/pipe: is a pipe, not a regular file");
  CHECK(put(box, file(std::string("a\0b", 3), "x")) == "contains a NUL byte");
  CHECK(put(box, file("far", "x", ~std::uint64_t{0})).find("File too large") != std::string::npos);
  CHECK(get(box, "/none").error == "/none: No such file or directory");
}

TEST_CASE(
    "a link is followed as a program would, and a file that was there keeps its mode if asked") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  shell(box, "mkdir far; echo old > far/file; chmod 640 far/file; ln -s far near");
  auto update = file("near/file", "new");
  update.keep_mode = update.want_info = update.last = true;
  auto answer = put_all(box, update);
  REQUIRE(answer.info);
  CHECK(answer.info->mode == 0640);
  CHECK(answer.info->size == 3);
  CHECK(box.run(box.job("bash", "cat far/file")).out == "new");
  CHECK(put(box, file("near/file", "new")).empty());
  CHECK(box.run(box.job("bash", "stat -c %a far/file")).out == "644\n");
}

TEST_CASE("a program that swaps a file, a pipe and links meanwhile leads nobody astray") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto swapper = box.job("python", R"py(
import os
os.mkfifo("pipe")
open("real", "w").write("real")
targets = ["/proc/self/fd/3", "/proc/1/mem", "/dev/zero", "real", "/mnt", "missing"]
def attempt(act, *args):
    try:
        act(*args)
    except OSError:
        pass
print("up", end="", flush=True)
while not os.path.exists("stop"):
    for target in targets:
        attempt(os.symlink, target, "next"); attempt(os.rename, "next", "place")
    attempt(os.link, "pipe", "next"); attempt(os.rename, "next", "place")
    attempt(os.mkdir, "d"); attempt(os.rename, "d", "dir"); attempt(os.rmdir, "dir")
    attempt(os.symlink, "/usr", "d"); attempt(os.rename, "d", "dir"); attempt(os.unlink, "dir")
)py");
  box.send(swapper);
  while (!std::holds_alternative<guest::output>(*box.next()))
    ;
  int written = 0;
  for (int i = 0; i < 2000; ++i) {
    written += put_all(box, file("place", "data")).failure == ec::none ? 1 : 0;
    auto read = get(box, "/mnt/place");
    if (read.failure == ec::none) {
      std::string text{read.data.begin(), read.data.end()};
      CHECK((text == "real" || text == "data" || text.empty()));
    }
    // Nothing below /usr can go: what is removed is never what a link leads to.
    ec code = done(box, guest::remove_path{0, "/mnt/dir"}).failure;
    CHECK((code == ec::none || code == ec::not_found || code == ec::conflict));
  }
  CAPTURE(written);
  CHECK(written > 0);
  box.send(file("stop", ""));
  CHECK(box.gather(swapper.job).exit_code() == 0);
}

TEST_CASE("a directory is listed with what is in it, level by level") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  shell(box,
        "mkdir -p a/b/c; echo hello > a/file; ln -s /nowhere a/link; mkfifo a/pipe; : > a/b/x");
  auto listed = list(box, "/mnt/a");
  CHECK(names(listed)
        == std::vector<std::string>{"/mnt/a/b", "/mnt/a/file", "/mnt/a/link", "/mnt/a/pipe"});
  CHECK(listed.entries[0].kind == file_kind::directory);
  CHECK(listed.entries[1].kind == file_kind::file);
  CHECK(listed.entries[1].size == 6);
  CHECK(listed.entries[1].name == "file");
  CHECK(listed.entries[1].modified_at_ms > 1'600'000'000'000);
  CHECK(listed.entries[2].kind == file_kind::symlink);
  CHECK(listed.entries[2].target == "/nowhere");
  CHECK(listed.entries[3].kind == file_kind::other);
  CHECK(!listed.truncated);
  CHECK(names(list(box, "/mnt/a", 3)).size() == 6);
  CHECK(list(box, "/mnt/a/file").failure == ec::conflict);
  CHECK(list(box, "/mnt/none").failure == ec::not_found);
  CHECK(list(box, "/root").failure == ec::rejected);
  CHECK(done(box, guest::stat_path{0, "/mnt/a/link"}).info->target == "/nowhere");
  CHECK(done(box, guest::stat_path{0, "/"}).info->kind == file_kind::directory);
  CHECK(done(box, guest::stat_path{0, "/mnt/none/x"}).failure == ec::not_found);
}

TEST_CASE("a huge directory is listed as far as the bounds go, and jobs run meanwhile") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  shell(box, "mkdir many; cd many; seq 20000 | xargs touch; cd ..; for i in {1..900}; do "
             "mkdir -p deep/$i/a; done");
  auto listed = list(box, "/mnt/many");
  CHECK(listed.entries.size() == 10'000);
  CHECK(listed.truncated);
  listed = list(box, "/mnt/deep", 16);
  CHECK(listed.entries.size() == 1800);
  CHECK(!listed.truncated);
  box.send(guest::remove_path{5, "/mnt/many"});
  box.send(guest::ping{6});
  // The ping is answered before 20000 files are gone: nobody waits for a removal.
  CHECK(box.expect<guest::pong>().request == 6);
  CHECK(box.expect<guest::path_done>().failure == ec::none);
  CHECK(done(box, guest::stat_path{0, "/mnt/many"}).failure == ec::not_found);
}

TEST_CASE("directories are made with those above them, moved and removed") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  CHECK(done(box, guest::make_path{0, "/mnt/a/b/c"}).info->kind == file_kind::directory);
  CHECK(done(box, guest::make_path{0, "/mnt/a/b/c"}).failure == ec::already_exists);
  CHECK(put(box, file("a/b/c/file", "x")).empty());
  CHECK(done(box, guest::make_path{0, "/mnt/a/b/c/file/d"}).failure == ec::conflict);
  CHECK(done(box, guest::make_path{0, "/usr/new"}).failure == ec::rejected);
  auto moved = done(box, guest::move_path{0, "/mnt/a/b/c/file", "/mnt/new/place/file"});
  CHECK(moved.info->path == "/mnt/new/place/file");
  CHECK(done(box, guest::move_path{0, "/mnt/a/b/c/file", "/mnt/x"}).error.starts_with("from: "));
  CHECK(done(box, guest::move_path{0, "/mnt/new", "/mnt/new/below"}).failure == ec::conflict);
  CHECK(done(box, guest::move_path{0, "/mnt/new/place/file", "/mnt/a"}).failure == ec::conflict);
  CHECK(done(box, guest::move_path{0, "/mnt/new", "/mnt/b"}).failure == ec::none);
  CHECK(done(box, guest::remove_path{0, "/mnt/b/place/file"}).failure == ec::none);
  CHECK(done(box, guest::remove_path{0, "/mnt/b/place/file"}).failure == ec::not_found);
  shell(box, "mkdir keep; : > keep/me; ln -s /mnt/keep a/link; mkfifo a/pipe");
  CHECK(done(box, guest::remove_path{0, "/mnt/a/"}).failure == ec::none);
  CHECK(done(box, guest::stat_path{0, "/mnt/keep/me"}).failure == ec::none);
  for (const char* path : {"/", "/mnt/..", "/mnt/."}) {
    CAPTURE(path);
    CHECK(done(box, guest::remove_path{0, path}).failure == ec::rejected);
  }
  CHECK(done(box, guest::remove_path{0, "/usr"}).failure == ec::rejected);
}

TEST_CASE("a tree deeper than descriptors go is removed") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  shell(box, "mkdir deep; cd deep; for i in {1..400}; do mkdir d; : > f; cd d; done");
  CHECK(done(box, guest::remove_path{0, "/mnt/deep"}).failure == ec::none);
  CHECK(list(box, "/mnt").entries.empty());
}

TEST_CASE("any name of Linux goes there and back as text") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  shell(box, R"(printf x > $'new\nline'; printf x > $'\xff\xfe'; printf x > $'caf\xc3\xa9';)"
             R"(printf x > $'\xf4\x8f\xbf\xbf'; ln -s $'\x80' link)");
  auto listed = list(box, "/mnt");
  REQUIRE(listed.entries.size() == 5);
  for (const auto& each : listed.entries) {
    CAPTURE(each.path);
    CHECK(is_utf8(each.path));
    CHECK(path_to_text(text_to_path(each.path)) == each.path);
    if (each.kind == file_kind::symlink)
      CHECK(text_to_path(each.target) == "\x80");
    else
      CHECK(get(box, each.path).size == 1);
    CHECK(done(box, guest::remove_path{0, each.path}).failure == ec::none);
  }
  CHECK(list(box, "/mnt").entries.empty());
}

TEST_CASE("a watch tells what happens in a directory, and below it when it is recursive") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  shell(box, "mkdir -p flat/sub tree/sub");
  CHECK(done(box, guest::watch_path{0, "w1", "/mnt/flat", false}).failure == ec::none);
  CHECK(done(box, guest::watch_path{0, "w2", "/mnt/tree", true}).failure == ec::none);
  CHECK(done(box, guest::watch_path{0, "w3", "/mnt/none", true}).failure == ec::not_found);
  CHECK(done(box, guest::watch_path{0, "w3", "/proc", true}).failure == ec::rejected);
  box.send(box.job("bash", "echo a > flat/a; : > flat/sub/unseen; chmod 600 flat/a; rm flat/a; "
                           ": > flat/last"));
  std::string seen = changes_until(box, "created /mnt/flat/last");
  CHECK(seen.find("w1 created /mnt/flat/a\n") != std::string::npos);
  CHECK(seen.find("w1 written /mnt/flat/a\n") != std::string::npos);
  CHECK(seen.find("w1 attributes /mnt/flat/a\n") != std::string::npos);
  CHECK(seen.find("w1 removed /mnt/flat/a\n") != std::string::npos);
  CHECK(seen.find("unseen") == std::string::npos);
  box.send(box.job("bash", "mkdir -p tree/new/below; : > tree/new/below/file; : > tree/sub/x; "
                           "mv tree/new tree/moved; sleep 0.2; : > tree/moved/below/last"));
  seen = changes_until(box, "created /mnt/tree/moved/below/last");
  CHECK(seen.find("w2 created /mnt/tree/new\n") != std::string::npos);
  CHECK(seen.find("w2 created /mnt/tree/sub/x\n") != std::string::npos);
  CHECK(seen.find("w2 renamed /mnt/tree/new\n") != std::string::npos);
  CHECK(seen.find("w2 created /mnt/tree/moved\n") != std::string::npos);
  box.send(guest::unwatch_path{1, "w1"});
  box.send(guest::unwatch_path{2, "w2"});
  box.send(guest::unwatch_path{3, "w2"});
  int ended = 0;
  while (ended < 3)
    if (auto frame = box.next(); auto* answer = std::get_if<guest::path_done>(&*frame))
      CHECK((answer->failure == ec::none) == (++ended < 3));
}

TEST_CASE("changes that nobody could keep are told as overflow") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  CHECK(done(box, guest::watch_path{0, "w", "/mnt", false}).failure == ec::none);
  // The guest sleeps meanwhile: what is beyond the kernel's queue is lost, and said to be.
  auto busy =
      box.job("python", "print('up', end='', flush=True)\nimport os\nfor i in range(60000):\n"
                        "    open(str(i), 'w').close(); os.unlink(str(i))");
  box.send(busy);
  while (!std::holds_alternative<guest::output>(*box.next()))
    ;
  box.sleep_through_a_job();
  CHECK(changes_until(box, "w overflow /mnt\n") != "");
}
