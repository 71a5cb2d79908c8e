// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/machine.hpp"
#include "machines/namespace/privileged_process.hpp"
#include "machines/namespace/server_link.hpp"
#include "machines/reactor.hpp"
#include "machines/vm/launcher_protocol.hpp"
#include "machines/vm/vm_engine.hpp"
#include "machines/way_out.hpp"

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace berth::machines {

class vm_process;

/// The server's link to its launcher. Reactor's thread, but for closed() and what waits.
class launcher_link : public std::enable_shared_from_this<launcher_link> {
public:
  using answer_handler =
      std::function<void(const launcher::report& said, std::vector<owned_fd>& fds)>;

  launcher_link(spawner_handle handle, reactor& loop);

  void open();
  bool ask(const launcher::request& what, std::string_view texts = {},
           std::span<const int> fds = {});
  void adopt(std::uint64_t number, std::shared_ptr<vm_process> one);
  void forget(std::uint64_t number) { processes_.erase(number); }
  std::uint64_t next_number() { return next_number_++; }
  reactor& loop() { return loop_; }
  void shut_down() { link_->shut_down(); }
  /// Asks what is about no process; answered as those are.
  void ask_own(launcher::request what, std::span<const int> fds, answer_handler done);
  void close() { link_->close(); }
  bool wait_closed(std::chrono::milliseconds limit) { return link_->wait_closed(limit); }
  bool closed() const { return link_->closed(); }
  /// Waits for the launcher's end, and ends it when that takes longer.
  void wait_ended(std::chrono::milliseconds limit) { wait_for_spawner(pid_, limit); }

private:
  bool on_report(std::span<const std::byte> packet, std::vector<owned_fd>& fds);
  void on_end();

  reactor& loop_;
  const pid_t pid_;
  const std::shared_ptr<server_link> link_;
  std::uint64_t next_number_ = 1;
  std::map<std::uint64_t, std::shared_ptr<vm_process>> processes_;
  std::uint32_t next_ticket_ = 1;
  std::map<std::uint32_t, answer_handler> asked_;
};

/// One process of a hypervisor as its launcher tells of it; what it can do is its heirs' affair.
class vm_process : public virtual_machine, public std::enable_shared_from_this<vm_process> {
public:
  void tell(handlers told) override;
  void known_as(const std::string& machine) override;
  void kill() override;
  bool dead() const override { return dead_; }
  machine_usage usage() const override;

  // Of the link.
  void on_report(const launcher::report& said, std::vector<owned_fd>& fds);
  void launcher_gone() { gone(); }

protected:
  using answer_handler =
      std::function<void(const launcher::report& said, std::vector<owned_fd>& fds)>;

  /// With a way out it has a socket that leads there.
  explicit vm_process(std::shared_ptr<launcher_link> link, std::shared_ptr<way_out> out = nullptr)
    : link_(std::move(link))
    , number_(link_->next_number())
    , out_(std::move(out)) {}

  /// Asks for the process. What it writes to standard error is kept, its end; `fds` follow.
  /// False: it cannot be asked; no handler is called then.
  bool launch(launcher::request asked, std::span<const std::string> texts, std::vector<int> fds);
  /// Asks the launcher something about it; answered once, with an error when it died.
  void ask(launcher::request what, std::string_view text, std::span<const int> fds,
           answer_handler done);
  /// Why it will have died, if nobody knows better.
  void blame(const std::string& why);
  /// What it wrote to standard error, its end.
  const std::string& last_words();
  void stopped();
  /// It is dead: lets go what it had.
  virtual void let_go() = 0;

  /// It will never be: its end is told as that of one that was.
  void give_up(const std::string& why);

  static std::string error_of(const launcher::report& said);

  const std::shared_ptr<launcher_link> link_;
  const std::uint64_t number_;

private:
  void ended(std::string why, bool out_of_memory);
  void gone();
  void serve_out();

  const std::shared_ptr<way_out> out_;
  std::string machine_;
  owned_fd listener_; // until it is known whose it is
  std::shared_ptr<void> door_;
  owned_fd errors_;
  reactor::token errors_watch_ = 0;
  std::string words_;
  handlers told_;
  bool dead_ = false;
  bool gone_ = false;
  bool told_end_ = false;
  std::string why_;
  bool out_of_memory_ = false;
  std::uint32_t next_ticket_ = 1;
  std::map<std::uint32_t, answer_handler> asked_;

  mutable std::mutex mutex_;
  cgroup_handles handles_; // guarded by mutex_
};

} // namespace berth::machines
