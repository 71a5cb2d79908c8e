// SPDX-License-Identifier: Apache-2.0
#include "machines/firecracker/launcher.hpp"

#include "machines/firecracker/fault_handler.hpp"
#include "machines/firecracker/kept_states.hpp"
#include "machines/namespace/confine/confine.h"
#include "machines/vm/vm_launcher.hpp"
#include "machines/vm/vm_memory.hpp"

#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <map>
#include <memory>
#include <sched.h>
#include <unistd.h>

namespace berth::machines {

namespace fs = std::filesystem;

namespace {

using launcher::request;
using launcher::request_kind;

/// Of a name so much is part of Firecracker's id, which may have 64.
constexpr std::size_t name_bytes_max = 40;
/// What Firecracker may write to files beside its guest's memory.
constexpr std::uint64_t other_file_bytes = 64ULL << 20;
constexpr const char* jailed_descriptors = "no-file=256";

std::string failed(const std::string& what) {
  return what + ": " + std::strerror(errno);
}

bool is_name(std::string_view text) {
  auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
  };
  return std::ranges::all_of(text, fits);
}

class firecracker_launcher final : public vm_launcher {
public:
  firecracker_launcher(const firecracker_settings& settings, const image& from, owned_fd server)
    : vm_launcher(settings, "Firecracker", std::move(server))
    , options_(settings)
    , image_(from) {}

private:
  std::string prepare() override;
  std::string check_programs() const;
  std::vector<std::string> walls() const override;
  std::string plan(const request& asked, std::vector<std::string> texts, living& one,
                   wall_plan& to) override;
  std::string furnish(const wall_plan& wanted) const;
  void choose_program(const std::string& id, const request& asked, wall_plan& to) const;
  bool on_request(const request& asked, std::string_view text, std::vector<owned_fd>& fds) override;
  void on_connect(const request& asked, std::string_view text);
  owned_fd connect_to(const living& to, std::string_view name) const;
  void on_keep(const request& asked);
  void on_make(const request& asked, std::vector<owned_fd>& fds);
  void tell_state(const request& asked, std::uint64_t state, const chore_result& result);
  void on_other(std::uint64_t number) override;
  void on_cleared(const living& one) override;
  void on_end_of_all() override { states_.close(); }

  const firecracker_settings& options_;
  const image& image_;
  std::string machines_; // the base of the jailer's directories
  kept_states states_;
  std::map<std::uint64_t, fault_handler> faults_;
};

/// Each part returns why it cannot be; the first reason ends the launcher.
std::string firecracker_launcher::prepare() {
  if (std::string why = claim(options_.runtime_dir); !why.empty())
    return why;
  if (std::string why = check_programs(); !why.empty())
    return why;
  if (options_.need_cgroups && (!cgroups_.memory() || !cgroups_.pids()))
    return "cgroups are required: run berth as root, or in a unit with Delegate=yes";
  if (options_.need_landlock && (!ordinary_user_ || berth_landlock_abi() == 0))
    return ordinary_user_ ? "landlock is required: this kernel has none"
                          : "landlock is required: Firecracker's jailer does without";
  machines_ = instance_.path() + "/machines";
  std::error_code error;
  if (!fs::create_directories(machines_, error))
    return machines_ + ": " + error.message();
  ::umask(022);
  if (::unshare(CLONE_NEWNS) != 0
      || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return failed("private mount namespace");
  return states_.open(instance_.path() + "/states");
}

std::string firecracker_launcher::check_programs() const {
  if (::access(options_.binary.c_str(), X_OK) != 0)
    return failed(options_.binary) + " (install Firecracker, or set firecracker.binary)";
  if (ordinary_user_)
    return {};
  if (::access(options_.jailer.c_str(), X_OK) != 0)
    return failed(options_.jailer)
           + " (as root its jailer is needed, too: install it, or set firecracker.jailer)";
  if (fs::path{options_.binary}.filename().string().find("firecracker") == std::string::npos)
    return options_.binary + ": the jailer takes a program only whose name has `firecracker` in it";
  return {};
}

std::vector<std::string> firecracker_launcher::walls() const {
  std::vector<std::string> all{
      "Firecracker: " + options_.binary + ", its own seccomp filter left on",
      "Firecracker's walls: namespaces pid, mount, network (none at all), ipc, uts, cgroup"};
  if (ordinary_user_)
    all.emplace_back("Firecracker's privileges: the uid of the server's user, no capabilities, "
                     "no_new_privs; it sees the host's files as that user does");
  else
    all.push_back("Firecracker's privileges: by its jailer (" + options_.jailer
                  + "), a root of its own and a host uid of its own for each machine, from "
                  + std::to_string(options_.uid_base));
  all.push_back("API sockets: " + machines_ + "/" + fs::path{options_.binary}.filename().string()
                + "/<machine>-<n>/root/vm.sock");
  return all;
}

std::string firecracker_launcher::plan(const request& asked, std::vector<std::string> texts,
                                       living& one, wall_plan& to) {
  const std::string name = texts.front();
  const bool boots = asked.state == 0;
  if (!is_name(name) || (!boots && !states_.has(asked.state)))
    return "the request for a machine is not one";
  const std::string id =
      (name.empty() ? "vm" : name.substr(0, name_bytes_max)) + "-" + std::to_string(asked.number);
  one.directory = machines_ + "/" + fs::path{options_.binary}.filename().string() + "/" + id;
  to.directory = one.directory + "/root";
  to.hidden = states_.path();
  to.shown = {{.from = image_.root(), .as = "disk"},
              {.from = states_.inbox(asked.number), .as = "saved", .writable = true}};
  if (boots) {
    to.shown.push_back({.from = image_.kernel(), .as = "kernel"});
    to.shown.push_back({.from = image_.initrd(), .as = "initrd"});
  } else {
    to.shown.push_back({.from = states_.devices(asked.state), .as = "devices"});
    to.shown.push_back({.from = states_.memory(asked.state), .as = "memory"});
  }
  if (std::string why = states_.make_inbox(asked.number, uid_of(one)); !why.empty())
    return why;
  if (std::string why = furnish(to); !why.empty())
    return why;
  if (asked.by_faults != 0 && !boots) {
    std::string why;
    auto handler = fault_handler::start(to.directory + "/faults.sock", states_.memory(asked.state),
                                        uid_of(one), why);
    if (!handler)
      return why;
    watch_other(handler.fd(), asked.number);
    faults_.emplace(asked.number, std::move(handler));
  }
  choose_program(id, asked, to);
  return {};
}

/// What is mounted needs something of its sort below it.
std::string firecracker_launcher::furnish(const wall_plan& wanted) const {
  const std::string& root = wanted.directory;
  std::error_code error;
  if (!fs::create_directories(root, error))
    return root + ": " + error.message();
  auto own = [&](const std::string& path) {
    return ::chown(path.c_str(), wanted.uid, wanted.uid) == 0;
  };
  auto make_file = [](const std::string& path) {
    return static_cast<bool>(
        owned_fd{::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)});
  };
  if (!own(root))
    return failed(root);
  for (const auto& one : wanted.shown) {
    const std::string path = root + "/" + one.as;
    const bool made = one.writable ? ::mkdir(path.c_str(), 0700) == 0 : make_file(path);
    if (!made)
      return failed(path);
  }
  const std::string metrics = root + "/metrics";
  if (options_.metrics && (!make_file(metrics) || !own(metrics)))
    return failed(metrics);
  return {};
}

void firecracker_launcher::choose_program(const std::string& id, const request& asked,
                                          wall_plan& to) const {
  if (ordinary_user_) {
    to.kind = wall_kind::firecracker;
    to.binary = options_.binary;
    to.arguments = {options_.binary, "--id", id, "--api-sock", "vm.sock"};
    return;
  }
  const std::string uid = std::to_string(to.uid);
  to.kind = wall_kind::jailer;
  to.binary = options_.jailer;
  to.arguments = {options_.jailer,
                  "--id",
                  id,
                  "--exec-file",
                  options_.binary,
                  "--uid",
                  uid,
                  "--gid",
                  uid,
                  "--chroot-base-dir",
                  machines_,
                  "--resource-limit",
                  "fsize=" + std::to_string(asked.bytes_max + other_file_bytes),
                  "--resource-limit",
                  jailed_descriptors,
                  "--",
                  "--api-sock",
                  "vm.sock"};
}

bool firecracker_launcher::on_request(const request& asked, std::string_view text,
                                      std::vector<owned_fd>& fds) {
  switch (asked.kind) {
  case request_kind::connect:
    on_connect(asked, text);
    return true;
  case request_kind::keep:
    on_keep(asked);
    return true;
  case request_kind::make:
    on_make(asked, fds);
    return true;
  case request_kind::drop:
    states_.drop(asked.state);
    return true;
  default:
    return false;
  }
}

// --- sockets -------------------------------------------------------------------------------------

void firecracker_launcher::on_connect(const request& asked, std::string_view text) {
  const living* to = alive(asked.number);
  const bool known = text == "vm.sock" || text == "v.sock";
  owned_fd made;
  if (to != nullptr && known)
    made = connect_to(*to, text);
  else
    errno = known ? ESRCH : EINVAL;
  int error = made ? 0 : errno;
  int fd = made.get();
  tell(answer_to(asked, error), std::span<const int>{&fd, made ? 1UL : 0UL});
}

/// A Firecracker that was taken over can put anything in its directory: only a socket of its own is
/// connected to, whatever the name leads to.
owned_fd firecracker_launcher::connect_to(const living& to, std::string_view name) const {
  const std::string path = to.directory + "/root/" + std::string{name};
  owned_fd place{::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC)};
  struct stat info {};
  if (!place || ::fstat(place.get(), &info) != 0)
    return {};
  if (!S_ISSOCK(info.st_mode) || info.st_uid != uid_of(to))
    return errno = EPERM, owned_fd{};
  sockaddr_un where{};
  where.sun_family = AF_UNIX;
  std::snprintf(where.sun_path, sizeof where.sun_path, "/proc/self/fd/%d", place.get());
  owned_fd made{::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
  if (!made || ::connect(made.get(), reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0)
    return {};
  return made;
}

// --- states --------------------------------------------------------------------------------------

void firecracker_launcher::tell_state(const request& asked, std::uint64_t state,
                                      const chore_result& result) {
  auto note = answer_to(asked, result.error, result.text);
  owned_fd memory{::open(states_.memory(state).c_str(), O_RDONLY | O_CLOEXEC)};
  owned_fd devices{::open(states_.devices(state).c_str(), O_RDONLY | O_CLOEXEC)};
  if (note.error == 0 && (!memory || !devices))
    note.error = errno;
  if (note.error != 0) {
    states_.drop(state);
    return tell(note);
  }
  note.state = state;
  const std::array<int, 2> fds{memory.get(), devices.get()};
  tell(note, fds);
}

void firecracker_launcher::on_keep(const request& asked) {
  const living* of = alive(asked.number);
  if (of == nullptr)
    return tell(answer_to(asked, ESRCH));
  std::string why;
  const std::uint64_t state = states_.take(asked.number, uid_of(*of), asked.bytes_max, why);
  if (state == 0)
    return tell(answer_to(asked, EIO, why));
  // Firecracker writes all of the memory, most of which nobody ever touched.
  auto file = std::make_shared<owned_fd>(::open(states_.memory(state).c_str(), O_RDWR | O_CLOEXEC));
  chore work{.machine = 0, .urgent = true, .keep = {file->get()}};
  work.work = [fd = file->get()](chore_result& result) { result.error = dig_holes(fd); };
  work.done = [this, asked, state, file](const chore_result& result) {
    // Nobody hears the answer to a dead one.
    if (alive(asked.number) == nullptr)
      return states_.drop(state);
    tell_state(asked, state, result);
  };
  chores_.add(std::move(work));
}

void firecracker_launcher::on_make(const request& asked, std::vector<owned_fd>& fds) {
  std::string why;
  const std::uint64_t state = fds.size() == 2 || fds.size() == 3 ? states_.make(why) : 0;
  if (state == 0)
    return tell(answer_to(asked, EINVAL, why));
  auto create = [](const std::string& path) {
    return owned_fd{::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0444)};
  };
  auto files = std::make_shared<std::vector<owned_fd>>(std::move(fds));
  files->push_back(create(states_.memory(state)));
  files->push_back(create(states_.devices(state)));
  chore work{.machine = 0, .urgent = true, .keep = {}};
  for (const auto& one : *files)
    work.keep.push_back(one.get());
  work.work = [all = work.keep](chore_result& result) {
    const int pages = all.size() == 5 ? all[2] : -1;
    auto done = vm_memory::assemble(all[0], pages, all[all.size() - 2]);
    result.error = done.error;
    std::snprintf(result.text, sizeof result.text, "%s", done.text.c_str());
    off_t from = 0;
    ssize_t count = result.error == 0 ? 1 : 0;
    while (count > 0)
      count = ::sendfile(all.back(), all[1], &from, other_file_bytes);
    if (count < 0)
      result.error = errno;
  };
  work.done = [this, asked, state, files](const chore_result& result) {
    tell_state(asked, state, result);
  };
  chores_.add(std::move(work));
}

// --- ends ----------------------------------------------------------------------------------------

/// A machine whose memory nobody brings stands still for ever.
void firecracker_launcher::on_other(std::uint64_t number) {
  faults_.erase(number);
  destroy(number);
}

void firecracker_launcher::on_cleared(const living& one) {
  faults_.erase(one.number);
  if (one.directory.empty())
    return;
  std::error_code error;
  fs::remove_all(one.directory, error);
  states_.remove_inbox(one.number);
}

} // namespace

spawner_handle start_launcher(const firecracker_settings& settings, const image& from,
                              std::string& why) {
  return start_privileged(
      "berth-launcher",
      [&](owned_fd server) {
        firecracker_launcher{settings, from, std::move(server)}.run();
      },
      why);
}

} // namespace berth::machines
