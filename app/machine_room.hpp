// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/supervisor.hpp"
#include "config/settings.hpp"
#include "machines/egress/resolver.hpp"
#include "machines/image/image.hpp"
#include "machines/kvm_probe.hpp"
#include "machines/machine.hpp"
#include "machines/namespace/spawner.hpp"
#include "machines/reactor.hpp"
#include "machines/vm/vm_source.hpp"
#include "machines/way_out.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace berth {

/// Where a server's machines come from: which makes of them, and why; the privileged processes that
/// make them; the thread that serves them. The one place where sources are made. Destroyed after
/// all actors.
class machine_room {
public:
  /// Chooses the kinds and starts what needs privileges: a spawner, a launcher, or both. The
  /// server's own kind must work, those that only machine types name need not. Before any thread
  /// exists and before privileges are dropped.
  error prepare(const settings& values);
  /// Starts the thread and the sources. Where virtual machines are the server's own kind it waits
  /// until their template stands; else that is made when it is first asked for.
  error open(const settings& values);

  /// The server's own kind first.
  std::vector<make_source> sources() const;
  std::vector<std::string> makes() const;
  /// What holds the machines, how they were chosen, and what is not served, a line a fact.
  std::vector<std::string> isolation() const;

private:
  /// A launcher of virtual machines that waits for its source.
  struct launched {
    std::string make;
    machines::spawner_handle process;
    /// Makes the source that takes the process over.
    std::function<std::unique_ptr<machines::vm_source>(machines::spawner_handle, machines::reactor&,
                                                       std::shared_ptr<machines::way_out>)>
        open;
  };
  struct opened {
    std::string make;
    std::unique_ptr<machines::machine_source> source;
  };

  error start_make(const settings& values, const std::string& make);
  error start_launcher(const settings& values, const std::string& make);
  error start_qemu(const settings& values, const vm_type& type, launched& one);
  error start_firecracker(const settings& values, const vm_type& type, launched& one);
  error find_image(const settings& values, machines::vm_settings& of, machines::image& found);
  error start_spawner(const settings& values);
  void consider_virtual_machines(const settings& values);
  error open_own_virtual_machines(const settings& values);
  void end_spawner();
  void open_namespace_machines(const settings& values);
  /// The way out of machines of a make; none where they have none.
  std::shared_ptr<machines::way_out> way_out_of(const settings& values, std::string_view make);
  const machines::kvm_verdict& kvm();

  machines::spawner_handle spawner_;
  std::vector<launched> launchers_;
  std::optional<machines::kvm_verdict> kvm_;
  /// Whether virtual machines are to be the server's own kind.
  bool virtual_first_ = false;
  /// Why `auto` took what it took.
  std::string choice_;
  /// Makes that machine types ask for and this host does not serve, with the reasons.
  std::map<std::string, std::string> missing_;
  /// Of the ways out, if there are any: what programs send shall not wait for machines, nor they
  /// for it.
  std::unique_ptr<machines::reactor> egress_loop_;
  std::shared_ptr<machines::egress::resolver> resolver_;
  std::unique_ptr<machines::reactor> loop_;
  std::vector<opened> sources_;
};

} // namespace berth
