// SPDX-License-Identifier: Apache-2.0
#include "machines/inside/boot.hpp"
#include "machines/inside/identity.hpp"
#include "machines/inside/port.hpp"
#include "machines/inside/relay.hpp"
#include "machines/namespace/cgroup.hpp"
#include "machines/namespace/namespace_machine.hpp"

#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>

/// Process 1 of a virtual machine. A virtual machine is a small host with one namespace machine in
/// it: the same walls, the same guest, the same templates, and around them a kernel of its own.
/// What host and guest say goes through here; what concerns the virtual machine is done here, for
/// the guest has no privilege for it.
namespace berth::machines::inside {

namespace {

/// What this process, the spawner and the templates need of the memory, in MiB.
constexpr std::uint64_t keeper_mib = 64;
constexpr std::uint64_t memory_mib_min = 32;
/// Under emulation on a busy host everything takes its time; the host has limits of its own.
constexpr std::chrono::minutes hello_within{5};
constexpr std::chrono::seconds usage_every{1};

namespace_settings settings_for(const boot_options& options) {
  namespace_settings settings;
  settings.lib_dir = lib_dir;
  settings.runtime_dir = runtime_dir;
  settings.machines_max = 4;
  settings.hidden = {};
  settings.own_etc = true;
  settings.lazy_templates = true;
  settings.hello_within = hello_within;
  // The walls leave some room to what the machine itself needs.
  const std::uint64_t taken = keeper_mib + (machine_overhead_bytes >> 20);
  std::uint64_t memory = options.memory_mib > taken ? options.memory_mib - taken : 0;
  settings.defaults.memory_bytes = std::max(memory, memory_mib_min) << 20;
  settings.defaults.disk_bytes = options.disk_mib << 20;
  if (options.processes != 0)
    settings.defaults.processes = options.processes;
  return settings;
}

/// The machine, and what stands between it and the host. All on the reactor's thread.
class keeper : public machine_listener, public std::enable_shared_from_this<keeper> {
public:
  keeper(reactor& loop, const boot_options& options, std::shared_ptr<relay> out)
    : loop_(loop)
    , options_(options)
    , out_(std::move(out))
    , port_(
          loop, [this](std::span<const char> body) { on_host(body); },
          [this](bool full) {
            if (machine_)
              machine_->hold_output(full);
          }) {}

  void start(machine_source& source) {
    if (std::string why = port_.open(options_); !why.empty())
      end_machine(why);
    machine_ = source.start({.id = options_.hostname}, shared_from_this());
  }

  void on_frame(guest::from_guest frame) override {
    const bool ends = std::holds_alternative<guest::job_ended>(frame)
                      || std::holds_alternative<guest::cell_ended>(frame)
                      || std::holds_alternative<guest::kernel_ended>(frame);
    if (ends)
      tell_usage();
    if (std::holds_alternative<guest::hello>(frame))
      if (int error = names_.open(); error != 0)
        end_machine(std::string{"the guest is not found: "} + std::strerror(-error));
    if (std::holds_alternative<guest::renewed>(frame))
      frame = renewed_;
    std::visit([this](const auto& one) { port_.send(guest::encode_frame(one)); }, frame);
  }
  void on_lost(std::string why, bool) override { end_machine("the machine is lost: " + why); }
  void on_gone() override { end_machine("the machine is gone"); }

private:
  void on_host(std::span<const char> body) {
    auto frame = guest::decode_frame<guest::to_guest>(body);
    if (!frame)
      end_machine("the host sent what is no frame: " + frame.why().text());
    std::visit([this](auto& message) { on(message); }, *frame);
  }

  template <class T>
  void on(T& message) {
    if constexpr (std::is_same_v<T, guest::start_job> || std::is_same_v<T, guest::run_cell>)
      watch_usage();
    machine_->send(std::move(message));
  }
  void on(guest::prepare& message) { machine_->warm(message.language); }
  void on(guest::renew& message) {
    int error = reseed(message.entropy);
    if (error == 0)
      error = set_clock(message.clock_us);
    if (error == 0 && !message.hostname.empty())
      error = names_.set(message.hostname);
    renewed_.error = error == 0 ? std::string{} : std::strerror(-error);
    if (out_)
      out_->renew();
    // The guest has its interpreters told, and its answer, without a privilege, stands for ours.
    machine_->send(std::move(message));
  }
  void on(guest::limit& message) {
    machine_->set_limits({message.memory_bytes, message.processes, message.disk_bytes});
  }

  /// While something runs, the host is told what it uses.
  void watch_usage() {
    if (watching_)
      return;
    watching_ = true;
    loop_.after(usage_every, [this] {
      watching_ = false;
      if (tell_usage())
        watch_usage();
    });
  }

  /// Returns whether anything was done since it was last told.
  bool tell_usage() {
    machine_usage now = machine_->usage();
    bool moved = now.cpu_us != told_cpu_us_;
    told_cpu_us_ = now.cpu_us;
    port_.send(guest::encode_frame(guest::used{.memory_bytes = now.memory_bytes,
                                               .memory_peak_bytes = now.memory_peak_bytes,
                                               .cpu_us = now.cpu_us,
                                               .processes = now.processes,
                                               .disk_bytes = now.disk_bytes,
                                               .disk_limit_bytes = now.disk_limit_bytes,
                                               .oom_kills = now.oom_kills}));
    return moved;
  }

  reactor& loop_;
  const boot_options options_;
  const std::shared_ptr<relay> out_;
  std::shared_ptr<machine> machine_;
  port port_;
  host_names names_;
  /// The answer to the last renewal.
  guest::renewed renewed_;
  bool watching_ = false;
  std::uint64_t told_cpu_us_ = 0;
};

/// The kernel's memory killer never takes what keeps the machine.
void be_spared() {
  owned_fd file{::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC)};
  (void)!::write(file.get(), "-1000", 5);
}

/// Whoever loses its parent becomes a child of this process.
[[noreturn]] void reap() {
  while (true)
    if (::waitpid(-1, nullptr, __WALL) < 0 && errno == ECHILD)
      end_machine("the spawner has ended");
}

[[noreturn]] void run() {
  boot_options options;
  if (std::string why = boot(options); !why.empty())
    end_machine(why);
  be_spared();
  const namespace_settings settings = settings_for(options);
  std::string why;
  spawner_handle spawner = start_spawner(settings, why);
  if (!spawner)
    end_machine(why);
  drop_initial_files();
  reactor loop;
  auto out = options.way_out == 0 ? nullptr : std::make_shared<relay>(loop, options.way_out);
  if (out)
    if (why = raise_network(); !why.empty())
      end_machine(why);
  namespace_source source{settings, std::move(spawner), loop, out};
  auto one = std::make_shared<keeper>(loop, options, out);
  loop.post([&] { one->start(source); });
  reap();
}

} // namespace

} // namespace berth::machines::inside

int main() {
  // Keyboard and console have no say.
  std::signal(SIGINT, SIG_IGN);
  berth::machines::inside::run();
}
