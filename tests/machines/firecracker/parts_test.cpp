// SPDX-License-Identifier: Apache-2.0
#include "machines/firecracker/fault_handler.hpp"
#include "machines/firecracker/firecracker_machine.hpp"
#include "machines/firecracker/kept_states.hpp"
#include "machines/firecracker/vsock.hpp"
#include "tests/support/skip.hpp"
#include "tests/support/temp_dir.hpp"

#include <catch2/catch.hpp>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <fstream>
#include <future>
#include <sched.h>
#include <unistd.h>

using namespace berth;
using namespace berth::machines;
namespace fc = berth::machines::firecracker;

namespace {

constexpr std::chrono::seconds hang_limit{60};

/// What becomes of a call for a guest's port, where the vsock answers with `text`, and hangs up if
/// it shall.
std::pair<std::string, std::string> called(const std::string& text, bool hangs_up) {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  owned_fd ours{ends[0]};
  REQUIRE(::send(ours.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
  if (hangs_up)
    ::shutdown(ours.get(), SHUT_WR);
  std::promise<std::pair<std::string, std::string>> told;
  auto outcome = told.get_future();
  reactor loop;
  auto call = std::make_shared<fc::vsock_call>(loop, owned_fd{ends[1]});
  loop.post([&] {
    call->begin(
        1024, std::chrono::milliseconds{100}, [&](owned_fd stream, const std::string& error) {
          char next[16] = {};
          ssize_t count = stream ? ::recv(stream.get(), next, sizeof next - 1, MSG_DONTWAIT) : 0;
          told.set_value(
              {error, std::string(next, count > 0 ? static_cast<std::size_t>(count) : 0)});
        });
  });
  REQUIRE(outcome.wait_for(hang_limit) == std::future_status::ready);
  char asked[64] = {};
  REQUIRE(::recv(ours.get(), asked, sizeof asked - 1, 0) > 0);
  CHECK(std::string{asked} == "CONNECT 1024\n");
  return outcome.get();
}

void write_file(const std::string& path, std::size_t size) {
  std::ofstream{path} << std::string(size, 'x');
}

/// Runs checks where mounts are nobody else's; the first that fails is its answer.
std::string apart(const std::function<std::string()>& checks) {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    std::string told = "no mount namespace";
    if (::unshare(CLONE_NEWNS) == 0
        && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0)
      told = checks();
    bool whole = ::write(ends[1], told.data(), told.size()) == static_cast<ssize_t>(told.size());
    ::_exit(whole ? 0 : 1);
  }
  ::close(ends[1]);
  char text[4096];
  ssize_t count = ::read(ends[0], text, sizeof text);
  ::close(ends[0]);
  ::waitpid(pid, nullptr, 0);
  return {text, count > 0 ? static_cast<std::size_t>(count) : 0};
}

constexpr uid_t owner = 54321;
constexpr std::uint64_t memory_bytes = 8192;

/// What is taken of an inbox that somebody filled.
std::uint64_t taken(kept_states& states, std::uint64_t number, std::string& why,
                    const std::function<void(const std::string& inbox)>& fill) {
  why = states.make_inbox(number, owner);
  const std::string inbox = states.inbox(number);
  for (const auto& [name, size] :
       {std::pair{"/memory", memory_bytes}, std::pair{"/devices", 5UL}}) {
    write_file(inbox + name, size);
    (void)!::chown((inbox + name).c_str(), owner, owner);
  }
  fill(inbox);
  return states.take(number, owner, memory_bytes, why);
}

std::string check_states(const std::string& path) {
  kept_states states;
  if (std::string why = states.open(path); !why.empty())
    return why;
  std::string why;
  const auto good = taken(states, 1, why, [](const std::string&) {});
  if (good == 0 || !states.has(good))
    return "a good state was not taken: " + why;
  struct stat info {};
  if (::stat(states.memory(good).c_str(), &info) != 0 || info.st_uid != 0
      || (info.st_mode & 0222) != 0)
    return "a kept state can be written";
  const std::vector<std::function<void(const std::string&)>> bad{
      [](const std::string& at) { ::unlink((at + "/memory").c_str()); },
      [](const std::string& at) { write_file(at + "/memory", memory_bytes + 1); },
      [](const std::string& at) { write_file(at + "/devices", 0); },
      [](const std::string& at) { (void)!::chown((at + "/devices").c_str(), 0, 0); },
      [](const std::string& at) {
        ::unlink((at + "/devices").c_str());
        (void)!::symlink("/etc/hostname", (at + "/devices").c_str());
      },
      [](const std::string& at) { (void)!::link((at + "/memory").c_str(), (at + "/2").c_str()); },
      [](const std::string& at) {
        ::unlink((at + "/memory").c_str());
        (void)!::mkfifo((at + "/memory").c_str(), 0600);
      },
  };
  for (std::size_t i = 0; i < bad.size(); ++i)
    if (taken(states, i + 2, why, bad[i]) != 0 || why.empty())
      return "state " + std::to_string(i) + " was taken";
  states.drop(good);
  if (states.has(good))
    return "a dropped state is there";
  states.close();
  return "good";
}

} // namespace

TEST_CASE("a guest's port is asked for, and what follows the answer is the guest's") {
  auto [error, next] = called("OK 1073741824\nhello", false);
  CHECK(error == "");
  CHECK(next == "hello");
}

TEST_CASE("a vsock that hangs up, answers nonsense or nothing gives no channel") {
  for (const auto& [text, hangs_up] :
       {std::pair{std::string{}, true}, std::pair{std::string{"NO 1\n"}, false},
        std::pair{std::string(500, 'x'), false}, std::pair{std::string{"OK"}, true},
        std::pair{std::string{}, false}}) {
    INFO(text.substr(0, 20));
    CHECK(called(text, hangs_up).first != "");
  }
}

TEST_CASE("what Firecracker says of its memory is taken only when it fits the file") {
  const std::string good =
      R"([{"base_host_virt_addr": 1048576, "size": 4096, "offset": 0, "page_size": 4096},
          {"base_host_virt_addr": 4194304, "size": 8192, "offset": 4096}])";
  auto read = read_regions(good, 12'288);
  REQUIRE(read);
  CHECK(read->size() == 2);
  CHECK(read->back().offset == 4096);
  CHECK_FALSE(read_regions(good, 8192));
  std::string many = "[";
  for (int i = 0; i < 40; ++i)
    many += std::string(i == 0 ? "" : ",")
            + R"({"base_host_virt_addr": 4096, "size": 4096, "offset": 0})";
  for (
      const std::string& text :
      {std::string{}, std::string{"{}"}, std::string{"[]"}, std::string{"[1]"}, many + "]",
       std::string{R"([{"base_host_virt_addr": 4096, "size": 4096}])"},
       std::string{R"([{"base_host_virt_addr": 4096, "size": -1, "offset": 0}])"},
       std::string{R"([{"base_host_virt_addr": 4097, "size": 4096, "offset": 0}])"},
       std::string{R"([{"base_host_virt_addr": 18446744073709547520, "size": 8192, "offset": 0}])"},
       std::string{
           R"([{"base_host_virt_addr": 4096, "size": 4096, "offset": 0, "page_size": 2097152}])"}}) {
    INFO(text.substr(0, 80));
    CHECK_FALSE(read_regions(text, 1 << 20));
  }
}

TEST_CASE("a state that a machine wrote is kept only when it is plain files of its own") {
  if (::geteuid() != 0)
    return test::skip("states of other users: needs root");
  temp_dir dir;
  CHECK(apart([&] { return check_states(dir.path() + "/states"); }) == "good");
}

TEST_CASE("what of a file is nothing but zeros is given back") {
  temp_dir dir;
  const std::string path = dir.path() + "/memory";
  std::ofstream{path} << std::string(1 << 20, '\0') << std::string(1 << 20, 'x')
                      << std::string(1 << 20, '\0');
  owned_fd file{::open(path.c_str(), O_RDWR | O_CLOEXEC)};
  CHECK(dig_holes(file.get()) == 0);
  struct stat info {};
  REQUIRE(::fstat(file.get(), &info) == 0);
  CHECK(info.st_size == 3 << 20);
  CHECK(info.st_blocks * 512 < 2 << 20);
  char byte = 'y';
  REQUIRE(::pread(file.get(), &byte, 1, 100) == 1);
  CHECK(byte == '\0');
  REQUIRE(::pread(file.get(), &byte, 1, (1 << 20) + 5) == 1);
  CHECK(byte == 'x');
}

TEST_CASE("a kernel that Firecracker boots is told the vsock port of its channel") {
  auto words = firecracker_kernel_words({.kernel_words = "x=1", .disk_mib = 7, .hostname = "h"});
  CHECK(words.starts_with("x=1 console=ttyS0 reboot=k "));
  CHECK_THAT(words, Catch::Matchers::Contains(" berth.vsock_port=1024 berth.disk_mib=7"));
  CHECK_THAT(words, Catch::Matchers::EndsWith(" berth.hostname=h"));
}
