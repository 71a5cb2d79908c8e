// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/image/image.hpp"
#include "machines/kvm_probe.hpp"
#include "machines/qemu/launcher.hpp"
#include "machines/qemu/qemu_machine.hpp"
#include "tests/machines/fixture.hpp"

#include <cstdlib>
#include <fstream>
#include <set>

namespace berth::test {

/// How long a template may take: emulated, beside other work, under a sanitizer.
inline constexpr std::chrono::seconds template_limit{240};

/// Where the image for tests is; BERTH_VM_DATA says another place.
inline std::string vm_data_dir() {
  const char* given = std::getenv("BERTH_VM_DATA");
  return given != nullptr ? given : std::string{BERTH_BUILD_DIR} + "/vm";
}

/// A launcher, a reactor and a source of virtual machines, ended together. `problem` says why there
/// is none. One that does not `prepare` makes its template for its first machine.
struct vm_plant {
  explicit vm_plant(const std::string& name = "vm", machines::qemu_settings wanted = {},
                    bool prepare = true)
    : settings(std::move(wanted)) {
    settings.runtime_dir = runtime_dir_of(::getpid()) + "-" + name;
    settings.probe = "not asked";
    settings.hello_within = template_limit;
    auto image = machines::find_image(vm_data_dir(), "minimal");
    if (!image) {
      problem = "no image: " + to_refusal(image.error()).detail;
      return;
    }
    auto launcher = machines::start_launcher(settings, problem);
    launcher_pid = launcher.pid;
    if (!launcher)
      return;
    loop = std::make_unique<machines::reactor>();
    source = std::make_unique<machines::qemu_source>(settings, *image, std::move(launcher), *loop);
    if (prepare)
      problem = source->wait_ready(template_limit);
  }
  ~vm_plant() {
    source.reset();
    loop.reset();
    std::error_code error;
    std::filesystem::remove_all(settings.runtime_dir, error);
  }

  std::pair<std::shared_ptr<machines::machine>, std::shared_ptr<heard>>
  start(const std::string& id, machines::machine_limits limits = {},
        std::vector<std::string> warm = {}) {
    auto listener = std::make_shared<heard>();
    return {source->start({.id = id, .limits = limits, .warm = std::move(warm)}, listener),
            listener};
  }

  /// The processes of its QEMUs.
  std::set<pid_t> processes() const {
    std::set<pid_t> found;
    std::ifstream children{"/proc/" + std::to_string(launcher_pid) + "/task/"
                           + std::to_string(launcher_pid) + "/children"};
    for (pid_t pid = 0; children >> pid;)
      found.insert(pid);
    return found;
  }

  machines::qemu_settings settings;
  std::string problem;
  pid_t launcher_pid = -1;
  std::unique_ptr<machines::reactor> loop;
  std::unique_ptr<machines::qemu_source> source;
};

} // namespace berth::test
