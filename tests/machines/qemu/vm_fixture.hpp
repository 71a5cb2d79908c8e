// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/image/image.hpp"
#include "machines/kvm_probe.hpp"
#include "machines/qemu/launcher.hpp"
#include "machines/qemu/qemu_machine.hpp"
#include "tests/machines/fixture.hpp"
#include "tests/support/skip.hpp"

#include <cstdlib>
#include <optional>

namespace berth::test {

/// How long a template may take: emulated, beside other work, under a sanitizer.
inline constexpr std::chrono::seconds template_limit{240};

/// Where the image for tests is; BERTH_VM_DATA says another place.
inline std::string vm_data_dir() {
  const char* given = std::getenv("BERTH_VM_DATA");
  return given != nullptr ? given : std::string{BERTH_BUILD_DIR} + "/vm";
}

inline machines::qemu_settings patient() {
  machines::qemu_settings settings;
  settings.hello_within = template_limit;
  return settings;
}

/// The image that tests boot. BERTH_VM_IMAGE names another that is in the same place: one with more
/// languages, say.
inline expected<machines::image> vm_image() {
  const char* given = std::getenv("BERTH_VM_IMAGE");
  return machines::find_image(vm_data_dir(), given != nullptr ? given : "minimal");
}

/// A launcher, a reactor and a source of virtual machines, ended together. `problem` says why there
/// is none. One that does not `prepare` makes its template for its first machine.
struct vm_plant {
  explicit vm_plant(const std::string& name = "vm", machines::qemu_settings wanted = patient(),
                    std::optional<machines::image> from = {}, bool prepare = true,
                    std::shared_ptr<machines::way_out> out = nullptr)
    : settings(std::move(wanted)) {
    settings.runtime_dir = runtime_dir_of(::getpid()) + "-" + name;
    settings.probe = "not asked";
    if (!from) {
      auto found = vm_image();
      if (!found) {
        problem = "no image: " + to_refusal(found.error()).detail;
        return;
      }
      from = *found;
    }
    auto launcher = machines::start_launcher(settings, problem);
    launcher_pid = launcher.pid;
    if (!launcher)
      return;
    loop = std::make_unique<machines::reactor>();
    source = std::make_unique<machines::qemu_source>(settings, *from, std::move(launcher), *loop,
                                                     std::move(out));
    if (prepare)
      problem = source->wait_ready(template_limit);
  }
  ~vm_plant() {
    source.reset();
    loop.reset();
    std::error_code error;
    std::filesystem::remove_all(settings.runtime_dir, error);
  }

  /// For cases that cannot run without.
  bool is_missing() const {
    if (source && problem.empty())
      return false;
    skip("no virtual machine can be made here: " + problem);
    return true;
  }

  machines::qemu_settings settings;
  std::string problem;
  pid_t launcher_pid = -1;
  std::unique_ptr<machines::reactor> loop;
  std::unique_ptr<machines::qemu_source> source;
};

} // namespace berth::test
