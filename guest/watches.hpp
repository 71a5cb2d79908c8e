// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "guest/event_loop.hpp"
#include "guest/paths.hpp"
#include "messages/guest.hpp"

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace berth::guest {

/// Watches of one machine.
inline constexpr std::size_t watches_max = 64;
/// Directories that all watches of one machine may look at together.
inline constexpr std::size_t watched_directories_max = 8192;

/// Watches directories for a client, by inotify. What the kernel or the bounds here drop is told as
/// `overflow`, never kept silent. Reads what the kernel gathered only while `has_room` says that
/// the server takes it.
class watches {
public:
  using reporter = std::function<void(const files_changed&)>;

  watches(event_loop& loop, std::function<bool()> has_room, reporter report);

  path_done start(const watch_path& request);
  path_done end(const unwatch_path& request);

  /// Looks into directories that appeared below recursive watches, a few at a time.
  void step();
  bool busy() const { return !unseen_.empty(); }
  /// The server takes more.
  void on_room();
  /// The root of the file system is another one now: each watch is set anew and told `overflow`.
  void root_changed();

private:
  struct watch {
    std::string path;
    bool recursive = false;
  };
  /// What a watch calls a directory that the kernel watches for it.
  struct place {
    std::string watch;
    std::string path;
  };
  /// A directory that is to be watched, with what is in it; `told`: that it is there is known.
  struct unseen {
    std::string watch;
    std::string path;
    bool told = true;
  };

  path_error open_queue();
  path_error look_at(const std::string& id, const std::string& path, bool top);
  void look_into(const unseen& directory);
  void on_readable();
  void take(int descriptor, std::uint32_t mask, std::uint32_t cookie, const std::string& name);
  void take_for(const place& where, std::uint32_t mask, std::uint32_t cookie,
                const std::string& path);
  void forget_below(const std::string& id, const std::string& path, bool itself);
  bool rename_below(const std::string& id, const std::string& from, const std::string& to);
  void say(const std::string& id, file_change change, const std::string& path);
  void overflow(const std::string& id);
  void flush();
  void listen();

  event_loop& loop_;
  std::function<bool()> has_room_;
  reporter report_;
  owned_fd queue_;
  std::map<std::string, watch> watches_;
  std::map<int, std::vector<place>> places_;
  std::deque<unseen> unseen_;
  /// Directories that left their place, by watch and the kernel's cookie, until it says where they
  /// went.
  std::map<std::pair<std::string, std::uint32_t>, std::string> moving_;
  files_changed gathered_;
  std::size_t gathered_bytes_ = 0;
};

} // namespace berth::guest
