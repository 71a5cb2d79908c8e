// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fields.hpp"

#include <array>

/// What is said about the files of a session. Paths are the machine's; relative ones start at
/// /work. All of it is done inside the machine, with the rights of its programs.
namespace berth {

/// What a path names.
enum class file_kind : std::uint8_t { file, directory, symlink, other };
inline constexpr std::array<std::string_view, 4> file_kind_names{"file", "directory", "symlink",
                                                                 "other"};
constexpr std::span<const std::string_view> enum_names(file_kind) {
  return file_kind_names;
}

/// One file, directory or link.
struct file_info {
  std::string path;
  std::string name;
  file_kind kind = file_kind::file;
  std::uint64_t size = 0;
  std::uint32_t mode = 0;
  std::string owner;
  std::string group;
  std::int64_t modified_at_ms = 0;
  std::string target;

  static constexpr const char* type_name = "file_info";
  static constexpr auto fields() {
    return std::tuple{field("path", &file_info::path, "Absolute path."),
                      field("name", &file_info::name, "Last part of the path."),
                      field("kind", &file_info::kind, "What it is; a link is not followed."),
                      field("size", &file_info::size, "Bytes."),
                      field("mode", &file_info::mode, "Permission bits."),
                      opt("owner", &file_info::owner, "Name or number of its user."),
                      opt("group", &file_info::group, "Name or number of its group."),
                      field("modified_at_ms", &file_info::modified_at_ms, "Unix time, ms."),
                      opt("target", &file_info::target, "Where a link leads.")};
  }
  bool operator==(const file_info&) const = default;
};

/// Writes a part of a file. A file of any size is written by several of these, in order.
struct write_file {
  std::string session;
  std::string path;
  bytes data;
  std::uint64_t offset = 0;
  std::uint32_t mode = 0644;

  static constexpr const char* type_name = "write_file";
  static constexpr auto fields() {
    return std::tuple{
        field("session", &write_file::session, "Id, name or machine id."),
        field("path", &write_file::path, "Its directories are made when they are missing."),
        field("data", &write_file::data, "Bytes."),
        opt("offset", &write_file::offset, "Where they go; 0 creates or empties the file first."),
        opt("mode", &write_file::mode, "Permission bits of a new file.")};
  }
  bool operator==(const write_file&) const = default;
};

/// Lists a directory.
struct list_files {
  std::string session;
  std::string path;
  std::uint32_t depth = 1;

  static constexpr const char* type_name = "list_files";
  static constexpr auto fields() {
    return std::tuple{field("session", &list_files::session, "Id, name or machine id."),
                      opt("path", &list_files::path, "Directory; default /work."),
                      opt("depth", &list_files::depth, "Levels, 1 to 16.")};
  }
  bool operator==(const list_files&) const = default;
};

/// What a directory holds.
struct file_list {
  std::vector<file_info> entries;
  bool truncated = false;

  static constexpr const char* type_name = "file_list";
  static constexpr auto fields() {
    return std::tuple{field("entries", &file_list::entries, "Sorted by path."),
                      opt("truncated", &file_list::truncated, "Whether there are more.")};
  }
  bool operator==(const file_list&) const = default;
};

/// Tells what a path names.
struct stat_file {
  std::string session;
  std::string path;

  static constexpr const char* type_name = "stat_file";
  static constexpr auto fields() {
    return std::tuple{field("session", &stat_file::session, "Id, name or machine id."),
                      field("path", &stat_file::path, "A link is not followed.")};
  }
  bool operator==(const stat_file&) const = default;
};

/// Makes a directory and those above it.
struct make_dir {
  std::string session;
  std::string path;

  static constexpr const char* type_name = "make_dir";
  static constexpr auto fields() {
    return std::tuple{field("session", &make_dir::session, "Id, name or machine id."),
                      field("path", &make_dir::path, "already_exists when it is there.")};
  }
  bool operator==(const make_dir&) const = default;
};

/// Moves or renames. What was at `to`, if a file, is replaced.
struct move_file {
  std::string session;
  std::string from;
  std::string to;

  static constexpr const char* type_name = "move_file";
  static constexpr auto fields() {
    return std::tuple{field("session", &move_file::session, "Id, name or machine id."),
                      field("from", &move_file::from, "What is moved."),
                      field("to", &move_file::to, "Its new path.")};
  }
  bool operator==(const move_file&) const = default;
};

/// Removes a file, a link, or a directory with all that is in it.
struct remove_file {
  std::string session;
  std::string path;

  static constexpr const char* type_name = "remove_file";
  static constexpr auto fields() {
    return std::tuple{field("session", &remove_file::session, "Id, name or machine id."),
                      field("path", &remove_file::path, "A link is removed, not followed.")};
  }
  bool operator==(const remove_file&) const = default;
};

/// It is gone.
struct file_removed {
  std::string path;

  static constexpr const char* type_name = "file_removed";
  static constexpr auto fields() {
    return std::tuple{field("path", &file_removed::path, "Absolute path.")};
  }
  bool operator==(const file_removed&) const = default;
};

/// What happened to a file.
enum class file_change : std::uint8_t { created, written, removed, renamed, attributes, overflow };
inline constexpr std::array<std::string_view, 6> file_change_names{
    "created", "written", "removed", "renamed", "attributes", "overflow"};
constexpr std::span<const std::string_view> enum_names(file_change) {
  return file_change_names;
}

/// One change below a watched directory; also published on `session.<id>.files`.
struct file_event {
  std::string watch;
  file_change change = file_change::created;
  std::string path;

  static constexpr const char* type_name = "file_event";
  static constexpr auto fields() {
    return std::tuple{
        field("watch", &file_event::watch, "Id of the watch."),
        field("change", &file_event::change, "overflow: some were missed, look anew."),
        field("path", &file_event::path, "Absolute path.")};
  }
  bool operator==(const file_event&) const = default;
};

/// Watches a directory until unwatch_files or the end of the session.
struct watch_files {
  std::string session;
  std::string path;
  bool recursive = false;

  static constexpr const char* type_name = "watch_files";
  static constexpr auto fields() {
    return std::tuple{field("session", &watch_files::session, "Id, name or machine id."),
                      field("path", &watch_files::path, "Directory."),
                      opt("recursive", &watch_files::recursive, "All below it, too.")};
  }
  bool operator==(const watch_files&) const = default;
};

/// The watch is set.
struct files_watched {
  std::string watch;

  static constexpr const char* type_name = "files_watched";
  static constexpr auto fields() {
    return std::tuple{field("watch", &files_watched::watch, "Id of the watch.")};
  }
  bool operator==(const files_watched&) const = default;
};

/// Takes the changes since the last time.
struct read_watch {
  std::string session;
  std::string watch;
  std::uint32_t wait_ms = 0;

  static constexpr const char* type_name = "read_watch";
  static constexpr auto fields() {
    return std::tuple{field("session", &read_watch::session, "Id, name or machine id."),
                      field("watch", &read_watch::watch, "Id of the watch."),
                      opt("wait_ms", &read_watch::wait_ms, "How long to wait for one; <= 30000.")};
  }
  bool operator==(const read_watch&) const = default;
};

/// Changes, oldest first.
struct file_events {
  std::vector<file_event> events;

  static constexpr const char* type_name = "file_events";
  static constexpr auto fields() {
    return std::tuple{field("events", &file_events::events, "Oldest first.")};
  }
  bool operator==(const file_events&) const = default;
};

/// The watch is ended.
struct files_unwatched {
  std::string watch;

  static constexpr const char* type_name = "files_unwatched";
  static constexpr auto fields() {
    return std::tuple{field("watch", &files_unwatched::watch, "Id of the watch.")};
  }
  bool operator==(const files_unwatched&) const = default;
};

/// Ends a watch.
struct unwatch_files {
  std::string session;
  std::string watch;

  static constexpr const char* type_name = "unwatch_files";
  static constexpr auto fields() {
    return std::tuple{field("session", &unwatch_files::session, "Id, name or machine id."),
                      field("watch", &unwatch_files::watch, "Id of the watch.")};
  }
  bool operator==(const unwatch_files&) const = default;
};

} // namespace berth
