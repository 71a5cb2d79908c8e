// SPDX-License-Identifier: Apache-2.0
#include "machines/qemu/launcher.hpp"

#include "machines/namespace/confine/confine.h"
#include "machines/namespace/mounts.hpp"
#include "machines/qemu/launcher_house.hpp"
#include "machines/vm/vm_launcher.hpp"
#include "machines/vm/vm_memory.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <unistd.h>

namespace berth::machines {

namespace {

using launcher::request;
using launcher::request_kind;

class qemu_launcher final : public vm_launcher {
public:
  qemu_launcher(const qemu_settings& settings, owned_fd server)
    : vm_launcher(settings, "QEMU", std::move(server))
    , binary_(settings.binary) {}

private:
  std::string prepare() override;
  std::vector<std::string> walls() const override;
  std::string plan(const request& asked, std::vector<std::string> texts, living& one,
                   wall_plan& to) override;
  bool on_request(const request& asked, std::string_view text, std::vector<owned_fd>& fds) override;
  void on_memory(const request& asked, std::vector<owned_fd>& fds);

  const std::string binary_;
  owned_fd proc_;
};

/// Each part returns why it cannot be; the first reason ends the launcher.
std::string qemu_launcher::prepare() {
  proc_.reset(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!proc_)
    return std::string{"/proc: "} + std::strerror(errno);
  if (::access(binary_.c_str(), X_OK) != 0)
    return binary_ + ": " + std::strerror(errno)
           + " (install QEMU: apt-get install qemu-system-x86)";
  if (std::string why = claim(settings_.runtime_dir); !why.empty())
    return why;
  if (settings_.need_cgroups && (!cgroups_.memory() || !cgroups_.pids()))
    return "cgroups are required: run berth as root, or in a unit with Delegate=yes";
  if (settings_.need_landlock && berth_landlock_abi() == 0)
    return "landlock is required: this kernel has none";
  bool with_kvm = settings_.runs_by == accelerator::kvm;
  auto result = enter_launcher_house(binary_, with_kvm, instance_.path() + "/root");
  return result.ok() ? std::string{} : result.text();
}

std::vector<std::string> qemu_launcher::walls() const {
  return {std::string{"QEMU's walls: namespaces user, pid, mount, network ("}
              + (settings_.network ? "a loopback, the way out there" : "none at all")
              + "), ipc, uts, cgroup; read-only root with QEMU and libraries only",
          ordinary_user_ ? "QEMU's identity: the uid of the server's user, in user namespaces of "
                           "their own"
                         : "QEMU's identity: a host uid of its own for each machine, from "
                               + std::to_string(settings_.uid_base),
          "QEMU's privileges: no capabilities, no_new_privs, its own seccomp filter "
          "(-sandbox on)"};
}

std::string qemu_launcher::plan(const request&, std::vector<std::string> texts, living&,
                                wall_plan& to) {
  to.kind = wall_kind::qemu;
  to.binary = binary_;
  to.arguments = std::move(texts);
  return {};
}

bool qemu_launcher::on_request(const request& asked, std::string_view, std::vector<owned_fd>& fds) {
  if (asked.kind != request_kind::read_memory && asked.kind != request_kind::write_memory)
    return false;
  on_memory(asked, fds);
  return true;
}

/// In a process of its own: it takes as long as there is memory to copy.
void qemu_launcher::on_memory(const request& asked, std::vector<owned_fd>& fds) {
  const living* of = alive(asked.number);
  if (of == nullptr || fds.size() != 1)
    return tell(answer_to(asked, ESRCH));
  auto file = std::make_shared<owned_fd>(std::move(fds.front()));
  chore work{.machine = asked.number, .urgent = true, .keep = {proc_.get(), file->get()}};
  bool reads = asked.kind == request_kind::read_memory;
  work.work = [proc = proc_.get(), pid = of->pid, fd = file->get(), reads,
               most = asked.bytes_max](chore_result& result) {
    auto done =
        reads ? vm_memory::read_pages(proc, pid, fd, most) : vm_memory::write_pages(proc, pid, fd);
    result.error = done.error;
    result.bytes = done.bytes;
    std::snprintf(result.text, sizeof result.text, "%s", done.text.c_str());
  };
  work.done = [this, asked, file](const chore_result& result) {
    auto note = answer_to(asked, result.error, result.text);
    note.bytes = result.bytes;
    tell(note);
  };
  chores_.add(std::move(work));
}

} // namespace

spawner_handle start_launcher(const qemu_settings& settings, std::string& why) {
  return start_privileged(
      "berth-launcher",
      [&settings](owned_fd server) {
        qemu_launcher{settings, std::move(server)}.run();
      },
      why);
}

} // namespace berth::machines
