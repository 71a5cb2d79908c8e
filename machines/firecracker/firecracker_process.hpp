// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/firecracker/api.hpp"
#include "machines/firecracker/firecracker_settings.hpp"
#include "machines/firecracker/vsock.hpp"
#include "machines/vm/vm_process.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace berth::machines {

/// The port on which a guest listens on its vsock, and the guest's address there.
inline constexpr std::uint32_t guest_vsock_port = 1024;
inline constexpr std::uint32_t guest_cid = 3;

/// A state whose files the launcher keeps, as long as anybody has it.
class kept_state {
public:
  kept_state(std::shared_ptr<launcher_link> link, std::uint64_t number)
    : link_(std::move(link))
    , number_(number) {}
  ~kept_state();
  kept_state(const kept_state&) = delete;
  kept_state& operator=(const kept_state&) = delete;
  std::uint64_t number() const { return number_; }

private:
  const std::shared_ptr<launcher_link> link_;
  const std::uint64_t number_;
};

/// One Firecracker: its process, the conversation with its API, the way to its guest's vsock. It
/// takes what it begins from by names of files, which the launcher has put into its directory; so
/// it is started when that is known, and none waits ahead.
class firecracker_process final : public vm_process {
public:
  /// What all have in common.
  struct common {
    firecracker_settings settings;
    /// Told what Firecracker calls its version.
    std::function<void(const std::string& version)> on_version;
  };

  firecracker_process(std::shared_ptr<launcher_link> link, std::shared_ptr<const common> all,
                      vm_shape shape, std::string name)
    : vm_process(std::move(link))
    , common_(std::move(all))
    , shape_(shape)
    , name_(std::move(name)) {}

  /// Of one that boots. False: it cannot be asked for; no handler is called then.
  bool start(const std::string& kernel_words);
  /// Of one that goes on from a state: the memory that its state's differs from.
  void based_on(std::shared_ptr<const owned_fd> memory) { base_ = std::move(memory); }

  void boot(channel_handler then) override;
  void wake(const vm_state& from, channel_handler then) override;
  bool save_ends_channel() const override { return true; }
  void stop(step_handler then) override;
  void save(state_handler then) override;
  void go_on(channel_handler then) override;
  void freeze(step_handler then) override;
  std::string take_frozen(vm_template& to) override;
  void console(std::function<void(const std::string&)> then) override { then(last_words()); }
  void kill() override;
  bool answers() const override { return !dead() && !link_->closed(); }

private:
  using requests = std::vector<firecracker::request>;
  using clock = reactor::clock;

  bool launch_with(std::uint64_t state);
  void make_state(const vm_state& from, std::function<void(const std::string&)> then);
  void open_api(clock::time_point until, step_handler then);
  void on_api(owned_fd socket, const step_handler& then);
  void ask_all(std::shared_ptr<const requests> what, std::size_t next, step_handler then);
  void ask_all(requests what, step_handler then);
  requests boot_requests() const;
  std::optional<firecracker::rate_limit> disk_limit() const;
  void open_channel(clock::time_point until, channel_handler then);
  void call_guest(owned_fd socket, clock::time_point until, channel_handler then);
  void try_channel_again(clock::time_point until, const channel_handler& then,
                         const std::string& why);
  void write_state(state_handler then);
  void let_go() override;
  std::shared_ptr<firecracker_process> self() {
    return std::static_pointer_cast<firecracker_process>(shared_from_this());
  }

  const std::shared_ptr<const common> common_;
  const vm_shape shape_;
  const std::string name_;
  std::string kernel_words_;
  std::shared_ptr<const owned_fd> base_;
  bool launched_ = false;
  std::shared_ptr<firecracker::client> api_;
  std::shared_ptr<firecracker::vsock_call> call_;
  vm_state frozen_;
};

} // namespace berth::machines
