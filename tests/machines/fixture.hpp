// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/namespace_machine.hpp"

#include <catch2/catch.hpp>
#include <sys/syscall.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

/// What tests of real machines share.
namespace berth::test {

/// How long anything may take before a test is said to hang.
inline constexpr std::chrono::seconds hang_limit{60};

/// Keeps what a machine says, for a test to wait for.
class heard : public machines::machine_listener {
public:
  void on_frame(guest::from_guest frame) override {
    std::lock_guard guard{mutex_};
    frames_.push_back(std::move(frame));
    changed_.notify_all();
  }
  void on_lost(std::string why, bool out_of_memory) override {
    std::lock_guard guard{mutex_};
    ++lost_count_;
    why_ = std::move(why);
    out_of_memory_ = out_of_memory;
    changed_.notify_all();
  }
  void on_files(machines::files_done done) override {
    std::lock_guard guard{mutex_};
    files_.push_back(std::move(done));
    changed_.notify_all();
  }
  void on_gone() override {
    std::lock_guard guard{mutex_};
    ++gone_count_;
    changed_.notify_all();
  }

  /// Waits for the next frame of a type; other frames before it are dropped.
  template <class T>
  std::optional<T> next() {
    std::unique_lock lock{mutex_};
    std::optional<T> found;
    changed_.wait_for(lock, hang_limit, [&] {
      while (!frames_.empty() && !found) {
        if (auto* frame = std::get_if<T>(&frames_.front()))
          found = std::move(*frame);
        frames_.pop_front();
      }
      return found || gone_count_ > 0;
    });
    return found;
  }
  std::optional<guest::from_guest> next_any() {
    std::unique_lock lock{mutex_};
    changed_.wait_for(lock, hang_limit, [&] { return !frames_.empty() || gone_count_ > 0; });
    if (frames_.empty())
      return {};
    auto frame = std::move(frames_.front());
    frames_.pop_front();
    return frame;
  }
  /// Waits for the end of the next step on the machine's files of that kind.
  std::optional<machines::files_done> next_files(machines::files_step step) {
    std::unique_lock lock{mutex_};
    std::optional<machines::files_done> found;
    changed_.wait_for(lock, hang_limit, [&] {
      auto at = std::find_if(files_.begin(), files_.end(),
                             [&](const auto& done) { return done.step == step; });
      if (at != files_.end()) {
        found = std::move(*at);
        files_.erase(at);
      }
      return found || gone_count_ > 0;
    });
    return found;
  }
  bool wait_lost() {
    std::unique_lock lock{mutex_};
    return changed_.wait_for(lock, hang_limit, [&] { return lost_count_ > 0; });
  }
  bool wait_gone() {
    std::unique_lock lock{mutex_};
    return changed_.wait_for(lock, hang_limit, [&] { return gone_count_ > 0; });
  }
  int lost_count() const { return locked(lost_count_); }
  int gone_count() const { return locked(gone_count_); }
  bool out_of_memory() const { return locked(out_of_memory_); }
  std::string why() const { return locked(why_); }

private:
  template <class T>
  T locked(const T& value) const {
    std::lock_guard guard{mutex_};
    return value;
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<guest::from_guest> frames_;
  std::deque<machines::files_done> files_;
  int lost_count_ = 0;
  int gone_count_ = 0;
  bool out_of_memory_ = false;
  std::string why_;
};

/// Where the machines of a test's process live.
inline std::string runtime_dir_of(pid_t pid) {
  return "/tmp/berth-test-" + std::to_string(pid);
}

inline machines::namespace_settings test_settings(const std::string& lib_dir) {
  machines::namespace_settings settings;
  settings.lib_dir = lib_dir;
  settings.runtime_dir = runtime_dir_of(::getpid());
  settings.templates.clear();
  return settings;
}

/// A spawner, a reactor and a source, ended together. `problem` says why there is none.
struct plant {
  explicit plant(machines::namespace_settings wanted)
    : settings(std::move(wanted)) {
    auto spawner = machines::start_spawner(settings, problem);
    spawner_pid = spawner.pid;
    instance = spawner.instance;
    if (!spawner)
      return;
    loop = std::make_unique<machines::reactor>();
    source = std::make_unique<machines::namespace_source>(settings, std::move(spawner), *loop);
  }
  ~plant() {
    source.reset();
    loop.reset();
    std::error_code error;
    std::filesystem::remove_all(settings.runtime_dir, error);
  }

  std::pair<std::shared_ptr<machines::machine>, std::shared_ptr<heard>>
  start(const std::string& id, machines::machine_limits limits = {},
        std::vector<std::string> warm = {}) {
    auto listener = std::make_shared<heard>();
    return {source->start({id, limits, std::move(warm)}, listener), listener};
  }

  machines::namespace_settings settings;
  std::string problem;
  pid_t spawner_pid = -1;
  std::string instance;
  std::unique_ptr<machines::reactor> loop;
  std::unique_ptr<machines::namespace_source> source;
};

/// What a job wrote and how it ended.
struct ran {
  std::string out;
  std::string err;
  std::optional<std::int32_t> exit_code;
  std::optional<std::uint32_t> signal;
  bool ended = false;
};

/// Runs a job in a machine to its end; its number is given here.
ran run(machines::machine& in, heard& listener, guest::start_job job);
/// Runs a program in a machine to its end.
ran run(machines::machine& in, heard& listener, const std::string& language,
        const std::string& code);

/// Runs a test as an ordinary user, in a process of its own, which root can begin. Returns what it
/// says, or how the process ended if not well. With `lib_dir` in a plant of that.
std::string as_ordinary_user(const std::function<std::string()>& test);
std::string as_ordinary_user(const std::string& lib_dir,
                             const std::function<std::string(plant&)>& test);

/// The living processes of that name that can be seen.
std::size_t processes_named(const std::string& name);

} // namespace berth::test
