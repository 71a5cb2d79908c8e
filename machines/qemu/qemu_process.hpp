// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/qemu/qmp.hpp"
#include "machines/vm/vm_process.hpp"

#include <memory>
#include <string>
#include <vector>

namespace berth::machines {

/// One QEMU: its process, its monitor, the server's end of its guest's channel.
class qemu_process : public vm_process {
public:
  /// What a QEMU is started with.
  struct parts {
    std::vector<std::string> arguments;
    std::shared_ptr<const owned_fd> memory; ///< of one that waits
    std::shared_ptr<const owned_fd> root;
    std::shared_ptr<const owned_fd> kernel; ///< and initrd: of one that boots
    std::shared_ptr<const owned_fd> initrd;
    std::uint64_t guest_bytes = 0;  ///< its guest's memory
    std::uint64_t memory_bytes = 0; ///< what the process may use
    std::uint64_t processes = 0;
  };

  qemu_process(std::shared_ptr<launcher_link> link, std::shared_ptr<way_out> out)
    : vm_process(std::move(link), std::move(out)) {}

  /// Asks the launcher for it. False: it cannot be asked; no handler is called then.
  bool start(parts with);

  void boot(channel_handler then) override;
  void wake(const vm_state& from, channel_handler then) override;
  bool save_ends_channel() const override { return false; }
  void stop(step_handler then) override;
  void save(state_handler then) override;
  void go_on(channel_handler then) override;
  void freeze(step_handler then) override;
  std::string take_frozen(vm_template& to) override;
  void console(std::function<void(const std::string&)> then) override;
  bool answers() const override { return !dead() && !monitor_->closed(); }

private:
  using devices_handler = std::function<void(std::uint64_t fdset, const std::string& error)>;

  void on_event(const qmp::event& happened);
  void put_pages(const vm_state& from);
  void take_state(const vm_state& from);
  void save_devices(int to, devices_handler then);
  void read_pages(std::uint64_t fdset, state_handler then);
  void let_go() override;
  std::shared_ptr<qemu_process> self() {
    return std::static_pointer_cast<qemu_process>(shared_from_this());
  }

  std::shared_ptr<qmp::client> monitor_;
  owned_fd channel_;
  channel_handler waking_;
  vm_state saving_;
  std::uint64_t guest_bytes_ = 0;
  owned_fd frozen_memory_;
  owned_fd frozen_devices_;
};

} // namespace berth::machines
