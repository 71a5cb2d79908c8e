// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/machine.hpp"
#include "machines/namespace/privileged_process.hpp"
#include "machines/namespace/server_link.hpp"
#include "machines/qemu/launcher_protocol.hpp"
#include "machines/qemu/qmp.hpp"
#include "machines/reactor.hpp"

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace berth::machines {

class vm_process;

/// The server's link to its launcher. Reactor's thread, but for closed() and wait_closed().
class launcher_link : public std::enable_shared_from_this<launcher_link> {
public:
  launcher_link(spawner_handle handle, reactor& loop);

  void open();
  bool ask(const launcher::request& what, std::string_view arguments = {},
           std::span<const int> fds = {});
  void adopt(std::uint64_t number, std::shared_ptr<vm_process> one);
  void forget(std::uint64_t number) { processes_.erase(number); }
  std::uint64_t next_number() { return next_number_++; }
  reactor& loop() { return loop_; }
  void shut_down() { link_->shut_down(); }
  void close() { link_->close(); }
  bool wait_closed(std::chrono::milliseconds limit) { return link_->wait_closed(limit); }
  bool closed() const { return link_->closed(); }
  pid_t pid() const { return pid_; }

private:
  bool on_report(std::span<const std::byte> packet, std::vector<owned_fd>& fds);
  void on_end();

  reactor& loop_;
  const pid_t pid_;
  const std::shared_ptr<server_link> link_;
  std::uint64_t next_number_ = 1;
  std::map<std::uint64_t, std::shared_ptr<vm_process>> processes_;
};

/// One QEMU: its process, its monitor, the server's end of its guest's channel. Everything happens
/// on the reactor's thread, but for usage().
class vm_process : public std::enable_shared_from_this<vm_process> {
public:
  struct handlers {
    std::function<void(const qmp::event&)> on_event;
    /// It is dead, or never was; gone follows.
    std::function<void(const std::string& why, bool out_of_memory)> on_end;
    std::function<void()> on_gone;
  };
  using memory_handler = std::function<void(std::uint64_t bytes, const std::string& error)>;

  /// What a QEMU is started with, besides its arguments.
  struct parts {
    std::vector<std::string> arguments;
    std::shared_ptr<const owned_fd> memory;
    std::shared_ptr<const owned_fd> root;
    std::shared_ptr<const owned_fd> kernel; ///< and the two below: only of one that boots
    std::shared_ptr<const owned_fd> initrd;
    std::uint64_t memory_bytes = 0;
    std::uint64_t processes = 0;
  };

  explicit vm_process(std::shared_ptr<launcher_link> link)
    : link_(std::move(link))
    , number_(link_->next_number()) {}

  /// Asks the launcher for it. False: it cannot be asked; no handler is called then.
  bool start(const parts& with);
  /// Who is told from now on. What happened before is not told again, but its end is.
  void tell(handlers told);
  qmp::client& monitor() { return *monitor_; }
  /// The server's end of the guest's channel; once.
  owned_fd take_channel() { return std::move(channel_); }
  bool has_channel() const { return static_cast<bool>(channel_); }
  void kill();
  bool dead() const { return dead_; }
  /// Whether its monitor can be spoken to. When that ended, its own end follows.
  bool answers() const { return !dead_ && !monitor_->closed(); }
  /// What it wrote to standard error, its end.
  std::string last_words();

  void read_memory(int to, std::uint64_t bytes_max, memory_handler done);
  void write_memory(int from, memory_handler done);

  // Any thread.
  machine_usage usage() const;

  // Of the link.
  void on_report(const launcher::report& said, std::vector<owned_fd>& fds);
  void launcher_gone();

private:
  void ask_memory(launcher::request what, int fd, memory_handler done);
  void ended(std::string why, bool out_of_memory);
  void gone();

  const std::shared_ptr<launcher_link> link_;
  const std::uint64_t number_;
  std::shared_ptr<qmp::client> monitor_;
  owned_fd channel_;
  owned_fd errors_;
  std::string words_;
  handlers told_;
  bool dead_ = false;
  bool gone_ = false;
  bool told_end_ = false;
  std::string why_;
  bool out_of_memory_ = false;
  std::uint32_t next_ticket_ = 1;
  std::map<std::uint32_t, memory_handler> memory_;

  mutable std::mutex mutex_;
  cgroup_handles handles_; // guarded by mutex_
};

} // namespace berth::machines
