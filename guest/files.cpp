// SPDX-License-Identifier: Apache-2.0
#include "guest/files.hpp"

#include "messages/path_text.hpp"

#include <climits>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <fcntl.h>
#include <limits>

namespace berth::guest {

namespace {

constexpr auto offset_max = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());

path_error write_at(const std::string& path, int file, std::uint64_t offset, const bytes& data) {
  std::size_t done = 0;
  while (done < data.size()) {
    ssize_t count =
        pwrite(file, data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return error_of(path, count < 0 ? errno : EIO);
    done += static_cast<std::size_t>(count);
  }
  return {};
}

file_kind kind_of(mode_t mode) {
  return S_ISREG(mode)   ? file_kind::file
         : S_ISDIR(mode) ? file_kind::directory
         : S_ISLNK(mode) ? file_kind::symlink
                         : file_kind::other;
}

/// Gives an answer its error.
template <class Answer>
Answer& fail(Answer& answer, path_error why) {
  answer.failure = why.code;
  answer.error = std::move(why.text);
  return answer;
}

/// A path of a request into `to`; false when it is none.
template <class Answer>
bool read_path(std::string_view text, std::string& to, Answer& answer,
               const std::string& cwd = {}) {
  request_path found = path_of(text, cwd);
  to = std::move(found.path);
  if (found.error)
    fail(answer, std::move(found.error));
  return answer.failure == ec::none;
}

/// Fills in what a path names; a link is not followed.
void look_up(const std::string& path, path_done& answer) {
  answer.path = path_to_text(path);
  split_path parts = split(path);
  owned_fd directory = open_directory(parts.directory, O_PATH);
  struct stat info {};
  std::string name = parts.name.empty() ? "." : parts.name;
  if (!directory || fstatat(directory.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
    fail(answer, error_of(path, errno));
  else
    answer.info.emplace(info_of(path, info, directory.get(), name, owner_names{}));
}

/// The member at fault goes before what is said of it.
path_error about(const char* member, path_error why) {
  return {why.code, std::string{member} + ": " + why.text};
}

} // namespace

owner_names::owner_names()
  : users_(read("/etc/passwd"))
  , groups_(read("/etc/group")) {}

/// Lines of `name:x:id:...`, as far as a bounded look at the file goes.
owner_names::table owner_names::read(const char* path) {
  table names;
  opened_file file = open_for_reading(path);
  std::array<char, 16 * limits::kib> buffer;
  ssize_t count = file.error ? 0 : ::read(file.file.get(), buffer.data(), buffer.size());
  std::string_view text{buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0))};
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    std::size_t first = line.find(':');
    std::size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
    std::uint32_t id = 0;
    if (second == line.npos)
      continue;
    auto [end, why] = std::from_chars(line.data() + second + 1, line.data() + line.size(), id);
    if (why == std::errc{} && first <= 64)
      names.emplace(id, path_to_text(line.substr(0, first)));
  }
  return names;
}

std::string owner_names::name_of(const table& names, std::uint32_t id) {
  auto found = names.find(id);
  return found == names.end() ? std::to_string(id) : found->second;
}

file_info info_of(const std::string& path, const struct stat& info, int directory,
                  const std::string& name, const owner_names& owners) {
  file_info made;
  made.path = path_to_text(path);
  made.name = path_to_text(split(path).name);
  made.kind = kind_of(info.st_mode);
  made.size = static_cast<std::uint64_t>(info.st_size);
  made.mode = info.st_mode & 07777;
  made.owner = owners.user(info.st_uid);
  made.group = owners.group(info.st_gid);
  made.modified_at_ms =
      static_cast<std::int64_t>(info.st_mtim.tv_sec) * 1000 + info.st_mtim.tv_nsec / 1'000'000;
  if (made.kind == file_kind::symlink) {
    std::array<char, PATH_MAX> target;
    ssize_t size = readlinkat(directory, name.c_str(), target.data(), target.size());
    if (size > 0)
      made.target = path_to_text({target.data(), static_cast<std::size_t>(size)});
  }
  return made;
}

file_put put(const put_file& request) {
  file_put answer;
  answer.request = request.request;
  std::string path;
  if (!read_path(request.path, path, answer, request.cwd))
    return answer;
  if (path.ends_with('/'))
    return fail(answer, error_of(path, EISDIR));
  if (request.offset > offset_max - request.data.size())
    return fail(answer, error_of(path, EFBIG));
  opened_file target = open_for_writing(path, request.offset == 0);
  if (target.error)
    return fail(answer, std::move(target.error));
  bool sets_mode = target.made || (request.offset == 0 && !request.keep_mode);
  if (sets_mode && fchmod(target.file.get(), request.mode & 0777) != 0)
    return fail(answer, error_of(path, errno));
  if (path_error why = write_at(path, target.file.get(), request.offset, request.data))
    return fail(answer, std::move(why));
  if (request.want_info && request.last && fstat(target.file.get(), &target.info) == 0)
    answer.info.emplace(info_of(path, target.info, AT_FDCWD, path, owner_names{}));
  return answer;
}

file_data get(const get_file& request) {
  file_data answer;
  answer.request = request.request;
  std::string path;
  if (!read_path(request.path, path, answer))
    return answer;
  opened_file source = open_for_reading(path);
  if (source.error)
    return fail(answer, std::move(source.error));
  answer.size = static_cast<std::uint64_t>(source.info.st_size);
  std::size_t wanted = std::min<std::size_t>(request.bytes_max, limits::chunk_bytes_max);
  answer.data.resize(wanted);
  std::size_t done = 0;
  while (done < wanted && request.offset <= offset_max - wanted) {
    ssize_t count = pread(source.file.get(), answer.data.data() + done, wanted - done,
                          static_cast<off_t>(request.offset + done));
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      fail(answer, error_of(path, errno));
    if (count <= 0)
      break;
    done += static_cast<std::size_t>(count);
  }
  answer.data.resize(done);
  answer.eof = done < wanted || request.offset + done >= answer.size;
  return answer;
}

path_done tell(const stat_path& request) {
  path_done answer;
  answer.request = request.request;
  std::string path;
  if (read_path(request.path, path, answer))
    look_up(path, answer);
  return answer;
}

path_done make(const make_path& request) {
  path_done answer;
  answer.request = request.request;
  std::string path;
  if (!read_path(request.path, path, answer))
    return answer;
  bool made = false;
  if (path_error why = make_directory_path(path, made))
    return fail(answer, std::move(why));
  if (!made)
    return fail(answer, error_of(path, EEXIST));
  look_up(path, answer);
  return answer;
}

path_done move(const move_path& request) {
  path_done answer;
  answer.request = request.request;
  request_path from = path_of(request.from);
  if (from.error)
    return fail(answer, about("from", std::move(from.error)));
  request_path to = path_of(request.to);
  if (to.error)
    return fail(answer, about("to", std::move(to.error)));
  split_path source = split(from.path);
  split_path target = split(to.path);
  if (source.name.empty() || target.name.empty())
    return fail(answer, {ec::rejected, std::string{source.name.empty() ? "from" : "to"}
                                           + ": is the root of the file system"});
  owned_fd old_place = open_directory(source.directory, O_PATH);
  struct stat info {};
  if (!old_place || fstatat(old_place.get(), source.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
    return fail(answer, about("from", error_of(from.path, errno)));
  bool made = false;
  if (path_error why = make_directory_path(target.directory, made))
    return fail(answer, about("to", std::move(why)));
  owned_fd new_place = open_directory(target.directory, O_PATH);
  if (!new_place)
    return fail(answer, about("to", error_of(to.path, errno)));
  if (fstatat(new_place.get(), target.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0
      && S_ISDIR(info.st_mode))
    return fail(answer, about("to", error_of(to.path, EISDIR)));
  if (renameat(old_place.get(), source.name.c_str(), new_place.get(), target.name.c_str()) != 0)
    return fail(answer, about("to", error_of(to.path, errno)));
  look_up(to.path, answer);
  return answer;
}

} // namespace berth::guest
