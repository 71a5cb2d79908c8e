// SPDX-License-Identifier: Apache-2.0
#include "guest/watches.hpp"

#include "messages/path_text.hpp"

#include <sys/epoll.h>
#include <sys/inotify.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <memory>

namespace berth::guest {

namespace {

constexpr std::uint32_t heeded = IN_CREATE | IN_MODIFY | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO
                                 | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR
                                 | IN_EXCL_UNLINK;
/// Events of one frame to the server.
constexpr std::size_t batch_events = 256;
constexpr std::size_t batch_bytes = 64 * limits::kib;
/// Directories looked into in one step.
constexpr int step_directories = 4;
/// Entries of one directory that are looked at for directories among them; more are told as
/// `overflow`.
constexpr int scanned_entries_max = 16'384;

std::string below(const std::string& directory, const std::string& name) {
  return directory + (directory.ends_with('/') ? "" : "/") + name;
}

bool is_below(const std::string& path, const std::string& directory) {
  return path.size() > directory.size() && path.starts_with(directory)
         && (directory.ends_with('/') || path[directory.size()] == '/');
}

} // namespace

watches::watches(event_loop& loop, std::function<bool()> has_room, reporter report)
  : loop_(loop)
  , has_room_(std::move(has_room))
  , report_(std::move(report)) {}

// --- requests ------------------------------------------------------------------------------------

path_done watches::start(const watch_path& request) {
  path_done answer;
  answer.request = request.request;
  auto refuse = [&](path_error why) {
    answer.failure = why.code;
    answer.error = std::move(why.text);
    return answer;
  };
  request_path wanted = path_of(request.path);
  if (wanted.error)
    return refuse(std::move(wanted.error));
  if (watches_.size() >= watches_max)
    return refuse({ec::no_capacity, std::to_string(watches_max) + " watches are set already"});
  if (!watches_.emplace(request.watch, watch{wanted.path, request.recursive}).second)
    return refuse({ec::already_exists, "there is a watch " + request.watch});
  path_error why = open_queue();
  if (!why)
    why = look_at(request.watch, wanted.path, true);
  if (why) {
    watches_.erase(request.watch);
    return refuse(std::move(why));
  }
  answer.path = path_to_text(wanted.path);
  return answer;
}

path_done watches::end(const unwatch_path& request) {
  path_done answer;
  answer.request = request.request;
  auto found = watches_.find(request.watch);
  if (found == watches_.end()) {
    answer.failure = ec::not_found;
    answer.error = "there is no watch " + request.watch;
    return answer;
  }
  forget_below(request.watch, found->second.path, true);
  std::erase_if(unseen_, [&](const unseen& each) { return each.watch == request.watch; });
  std::erase_if(moving_, [&](const auto& each) { return each.first.first == request.watch; });
  watches_.erase(found);
  if (watches_.empty() && queue_) {
    loop_.forget(queue_.get());
    queue_.reset();
    places_.clear();
  }
  return answer;
}

path_error watches::open_queue() {
  if (queue_)
    return {};
  queue_.reset(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!queue_)
    return {ec::no_capacity,
            std::string{"the host allows no further watch: "} + std::strerror(errno)};
  listen();
  return {};
}

void watches::listen() {
  loop_.watch(queue_.get(), EPOLLIN, [this](std::uint32_t) { on_readable(); });
}

void watches::root_changed() {
  if (!queue_)
    return;
  loop_.forget(queue_.get());
  queue_.reset();
  places_.clear();
  unseen_.clear();
  moving_.clear();
  bool open = !open_queue();
  for (const auto& [id, each] : watches_) {
    overflow(id);
    // Where there is no such directory now, it is told as removed.
    if (!open || look_at(id, each.path, true))
      say(id, file_change::removed, each.path);
  }
  flush();
}

// --- directories ---------------------------------------------------------------------------------

/// Has the kernel watch a directory. The descriptor is what is watched, so that no link put in its
/// place leads elsewhere.
path_error watches::look_at(const std::string& id, const std::string& path, bool top) {
  owned_fd directory = open_directory(path, O_PATH | (top ? 0 : O_NOFOLLOW));
  if (!directory)
    return error_of(path, errno);
  if (is_made_up(directory.get()))
    return {ec::rejected, path_to_text(path) + ": is made up by the kernel and cannot be watched"};
  if (places_.size() >= watched_directories_max)
    return {ec::no_capacity, "more than " + std::to_string(watched_directories_max)
                                 + " directories would be watched"};
  std::string link = "/proc/self/fd/" + std::to_string(directory.get());
  int descriptor = inotify_add_watch(queue_.get(), link.c_str(), heeded);
  if (descriptor < 0 && errno == ENOSPC)
    return {ec::no_capacity, "the host allows no further watch"};
  if (descriptor < 0)
    return error_of(path, errno);
  std::vector<place>& known = places_[descriptor];
  std::erase_if(known, [&](const place& each) { return each.watch == id; });
  known.push_back({id, path});
  if (watches_.at(id).recursive)
    unseen_.push_back({id, path, top});
  return {};
}

/// Watches the directories in one. When it appeared just now, what is in it was made unseen.
void watches::look_into(const unseen& directory) {
  owned_fd fd = open_directory(directory.path, O_RDONLY | O_NOFOLLOW);
  std::unique_ptr<DIR, int (*)(DIR*)> stream{fd ? fdopendir(fd.get()) : nullptr, closedir};
  if (!stream)
    return;
  fd.release();
  int count = 0;
  while (const dirent* found = readdir(stream.get())) {
    std::string name = found->d_name;
    if (name == "." || name == "..")
      continue;
    if (++count > scanned_entries_max) {
      overflow(directory.watch);
      break;
    }
    std::string path = below(directory.path, name);
    if (!directory.told)
      say(directory.watch, file_change::created, path);
    // A directory that is gone by now is none of the watch's; any other reason leaves a gap.
    bool is_directory = found->d_type == DT_DIR || found->d_type == DT_UNKNOWN;
    if (!is_directory)
      continue;
    path_error why = look_at(directory.watch, path, false);
    if (why.code == ec::no_capacity) {
      overflow(directory.watch);
      break;
    }
    if (!why && !unseen_.empty())
      unseen_.back().told = directory.told;
  }
}

void watches::step() {
  for (int i = 0; i < step_directories && !unseen_.empty(); ++i) {
    unseen next = std::move(unseen_.front());
    unseen_.pop_front();
    if (watches_.contains(next.watch))
      look_into(next);
  }
  flush();
}

/// Ends what a watch sees of a directory, and of all below it.
void watches::forget_below(const std::string& id, const std::string& path, bool itself) {
  for (auto it = places_.begin(); it != places_.end();) {
    std::erase_if(it->second, [&](const place& each) {
      return each.watch == id && ((itself && each.path == path) || is_below(each.path, path));
    });
    if (it->second.empty()) {
      inotify_rm_watch(queue_.get(), it->first);
      it = places_.erase(it);
    } else {
      ++it;
    }
  }
}

/// False when the directory was out of sight: it had moved on before it was looked at.
bool watches::rename_below(const std::string& id, const std::string& from, const std::string& to) {
  bool seen = false;
  auto rename = [&](auto& each) {
    if (each.watch != id || (each.path != from && !is_below(each.path, from)))
      return;
    seen = seen || each.path == from;
    each.path = to + each.path.substr(from.size());
  };
  for (auto& [descriptor, all] : places_)
    std::ranges::for_each(all, rename);
  std::ranges::for_each(unseen_, rename);
  return seen;
}

// --- events --------------------------------------------------------------------------------------

void watches::on_room() {
  if (queue_ && !loop_.watches(queue_.get()))
    listen();
}

void watches::on_readable() {
  if (!has_room_()) {
    // The kernel keeps what it can, and says when that was not all.
    loop_.forget(queue_.get());
    return;
  }
  alignas(inotify_event) std::array<char, 16 * limits::kib> buffer;
  ssize_t size = ::read(queue_.get(), buffer.data(), buffer.size());
  for (ssize_t at = 0; at < size;) {
    inotify_event event;
    std::memcpy(&event, buffer.data() + at, sizeof event);
    const char* name = buffer.data() + at + sizeof event;
    take(event.wd, event.mask, event.cookie, std::string{name, strnlen(name, event.len)});
    at += static_cast<ssize_t>(sizeof event + event.len);
  }
  // Where they went was not said right after: out of all watches' sight.
  for (const auto& [whose, gone] : moving_)
    forget_below(whose.first, gone, true);
  moving_.clear();
  flush();
}

void watches::take(int descriptor, std::uint32_t mask, std::uint32_t cookie,
                   const std::string& name) {
  if (mask & IN_Q_OVERFLOW) {
    for (const auto& [id, each] : watches_) {
      overflow(id);
      // Directories may have appeared unseen.
      auto its = [&id = id](const unseen& waiting) { return waiting.watch == id; };
      if (each.recursive && std::ranges::none_of(unseen_, its))
        unseen_.push_back({id, each.path, true});
    }
    return;
  }
  auto found = places_.find(descriptor);
  if (found == places_.end())
    return;
  if (mask & IN_IGNORED) {
    places_.erase(found);
    return;
  }
  // A copy: what is done for one place may change the places.
  std::vector<place> all = found->second;
  for (const place& where : all)
    take_for(where, mask, cookie, name.empty() ? where.path : below(where.path, name));
}

void watches::take_for(const place& where, std::uint32_t mask, std::uint32_t cookie,
                       const std::string& path) {
  const watch& owner = watches_.at(where.watch);
  bool of_directory = (mask & IN_ISDIR) != 0;
  bool of_top = where.path == owner.path && path == where.path;
  // What a directory below the top says of itself, the one above it says, too.
  if (path == where.path && !of_top)
    return;
  if (mask & IN_CREATE)
    say(where.watch, file_change::created, path);
  if (mask & IN_MODIFY)
    say(where.watch, file_change::written, path);
  if (mask & IN_ATTRIB)
    say(where.watch, file_change::attributes, path);
  if (mask & (IN_DELETE | IN_DELETE_SELF))
    say(where.watch, file_change::removed, path);
  if (mask & (IN_MOVED_FROM | IN_MOVE_SELF))
    say(where.watch, file_change::renamed, path);
  if (mask & IN_MOVED_TO)
    say(where.watch, file_change::created, path);
  if (!of_directory || !owner.recursive || of_top)
    return;
  if (mask & IN_MOVED_FROM)
    moving_[{where.watch, cookie}] = path;
  if (mask & (IN_CREATE | IN_MOVED_TO)) {
    auto moved = moving_.find({where.watch, cookie});
    bool from_here = (mask & IN_MOVED_TO) && moved != moving_.end();
    bool seen = from_here && rename_below(where.watch, moved->second, path);
    if (from_here)
      moving_.erase(moved);
    if (seen)
      return;
    if (path_error why = look_at(where.watch, path, false); why.code == ec::no_capacity) {
      overflow(where.watch);
    } else if (!why) {
      // What was moved here was there before; what was made may have filled up unseen.
      unseen_.back().told = (mask & IN_MOVED_TO) != 0 && !from_here;
    }
  }
}

void watches::say(const std::string& id, file_change change, const std::string& path) {
  gathered_.events.push_back({id, change, path_to_text(path)});
  gathered_bytes_ += id.size() + gathered_.events.back().path.size();
  if (gathered_.events.size() >= batch_events || gathered_bytes_ >= batch_bytes)
    flush();
}

void watches::overflow(const std::string& id) {
  say(id, file_change::overflow, watches_.at(id).path);
}

void watches::flush() {
  if (!gathered_.events.empty())
    report_(gathered_);
  gathered_.events.clear();
  gathered_bytes_ = 0;
}

} // namespace berth::guest
