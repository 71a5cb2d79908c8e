// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/firecracker/firecracker_machine.hpp"
#include "machines/firecracker/launcher.hpp"
#include "machines/image/image.hpp"
#include "tests/machines/fixture.hpp"

#include <cstdlib>
#include <fstream>
#include <set>

namespace berth::test {

/// How long a template may take: emulated, beside other work, under a sanitizer.
inline constexpr std::chrono::seconds template_limit{240};

/// The conformance server in place of Firecracker, with QEMU behind it, and small machines.
inline machines::firecracker_settings conformance_settings() {
  machines::firecracker_settings made;
  made.binary = BERTH_SOURCE_DIR "/tests/support/firecracker_server.py";
  made.jailer = BERTH_SOURCE_DIR "/tests/support/firecracker_jailer.py";
  made.defaults = {.memory_bytes = 128ULL << 20, .processes = 64, .disk_bytes = 32ULL << 20};
  return made;
}

/// A launcher, a reactor and a source of Firecracker machines, ended together. `problem` says why
/// there is none.
struct firecracker_plant {
  firecracker_plant(const std::string& name, machines::firecracker_settings wanted)
    : settings(std::move(wanted)) {
    settings.runtime_dir = runtime_dir_of(::getpid()) + "-" + name;
    settings.probe = "not asked";
    settings.hello_within = template_limit;
    const char* given = std::getenv("BERTH_VM_DATA");
    auto image = machines::find_image(
        given != nullptr ? given : std::string{BERTH_BUILD_DIR} + "/vm", "minimal");
    if (!image) {
      problem = "no image: " + to_refusal(image.error()).detail;
      return;
    }
    auto launcher = machines::start_launcher(settings, *image, problem);
    launcher_pid = launcher.pid;
    if (!launcher)
      return;
    loop = std::make_unique<machines::reactor>();
    source = std::make_unique<machines::firecracker_source>(settings, *image, std::move(launcher),
                                                            *loop);
    problem = source->wait_ready(template_limit);
  }
  ~firecracker_plant() {
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

  /// The launcher's children.
  std::set<pid_t> processes() const {
    std::set<pid_t> found;
    std::ifstream children{"/proc/" + std::to_string(launcher_pid) + "/task/"
                           + std::to_string(launcher_pid) + "/children"};
    for (pid_t pid = 0; children >> pid;)
      found.insert(pid);
    return found;
  }

  /// The directory of a machine's root; empty when there is none.
  std::string root_of(const std::string& id) const {
    const std::string base = settings.runtime_dir + "/" + source->instance() + "/machines/"
                             + std::filesystem::path{settings.binary}.filename().string();
    std::error_code error;
    for (const auto& one : std::filesystem::directory_iterator{base, error})
      if (one.path().filename().string().starts_with(id + "-"))
        return one.path().string() + "/root";
    return {};
  }

  machines::firecracker_settings settings;
  std::string problem;
  pid_t launcher_pid = -1;
  std::unique_ptr<machines::reactor> loop;
  std::unique_ptr<machines::firecracker_source> source;
};

} // namespace berth::test
