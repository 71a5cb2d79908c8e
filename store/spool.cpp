// SPDX-License-Identifier: Apache-2.0
#include "store/spool.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>
#include <utility>

namespace berth {

namespace {

error why(const std::string& what) {
  return fail(ec::store_failed, "spool: " + what + ": " + std::strerror(errno));
}

/// A file without a name; where the file system cannot make one, a named one that is unlinked.
int make_file(const std::string& directory) {
  int fd = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0)
    return fd;
  std::string name = directory + "/output.XXXXXX";
  fd = mkostemp(name.data(), O_CLOEXEC);
  if (fd >= 0)
    unlink(name.c_str());
  return fd;
}

} // namespace

expected<spool> spool::open(const std::string& directory, std::uint64_t bytes_max) {
  std::error_code failed;
  std::filesystem::create_directories(directory, failed);
  if (failed)
    return fail(ec::store_failed, "spool: cannot make " + directory + ": " + failed.message());
  for (const auto& left : std::filesystem::directory_iterator{directory, failed}) {
    std::error_code ignored; // what cannot be removed is not used either
    std::filesystem::remove_all(left.path(), ignored);
  }
  if (failed)
    return fail(ec::store_failed, "spool: cannot read " + directory + ": " + failed.message());
  if (access(directory.c_str(), W_OK | X_OK) != 0)
    return why("cannot write to " + directory);
  return spool{directory, bytes_max};
}

spool::spool(std::string directory, std::uint64_t bytes_max)
  : directory_{std::move(directory)}
  , bytes_max_{bytes_max} {}

spool::spool(spool&& other) noexcept
  : directory_{std::move(other.directory_)}
  , bytes_max_{other.bytes_max_}
  , bytes_{other.bytes_}
  , files_{other.files_}
  , evicted_{other.evicted_}
  , jobs_{std::exchange(other.jobs_, {})}
  , ended_{std::exchange(other.ended_, {})} {
  other.directory_.clear();
}

spool& spool::operator=(spool&& other) noexcept {
  if (this == &other)
    return *this;
  close_all();
  directory_ = std::move(other.directory_);
  bytes_max_ = other.bytes_max_;
  bytes_ = other.bytes_;
  files_ = other.files_;
  evicted_ = other.evicted_;
  jobs_ = std::exchange(other.jobs_, {});
  ended_ = std::exchange(other.ended_, {}); // a list's iterators move with it
  return *this;
}

spool::~spool() {
  close_all();
  // Files in it have no names, so nothing but the directory is left to remove.
  if (!directory_.empty())
    ::rmdir(directory_.c_str());
}

void spool::close_all() {
  for (auto& [job, files] : jobs_)
    for (auto& [stream, file] : files.streams)
      close(file.fd);
  jobs_.clear();
  ended_.clear();
}

const spool::stream_file* spool::find(const std::string& job, std::uint32_t stream) const {
  auto files = jobs_.find(job);
  if (files == jobs_.end())
    return nullptr;
  auto file = files->second.streams.find(stream);
  return file == files->second.streams.end() ? nullptr : &file->second;
}

expected<spool::stream_file*> spool::make(const std::string& job, std::uint32_t stream) {
  auto files = jobs_.find(job);
  if (files != jobs_.end())
    if (auto known = files->second.streams.find(stream); known != files->second.streams.end())
      return &known->second;
  if (files_ >= limits::spool_files_max)
    make_room(bytes_max_ + 1);
  int fd = make_file(directory_);
  while (fd < 0 && (errno == EMFILE || errno == ENFILE) && make_room(bytes_max_ + 1))
    fd = make_file(directory_);
  if (fd < 0)
    return why("cannot make a file in " + directory_);
  ++files_;
  return &(jobs_[job].streams[stream] = {.fd = fd, .size = 0});
}

/// Lets the oldest job that ended go until `wanted` more bytes fit; with more than the whole budget
/// wanted, lets one go. False when none is left to go.
bool spool::make_room(std::uint64_t wanted) {
  bool one = wanted > bytes_max_;
  while (one || bytes_ + wanted > bytes_max_) {
    if (ended_.empty())
      return false;
    remove(std::string{ended_.front()});
    ++evicted_;
    if (one)
      return true;
  }
  return true;
}

expected<std::uint64_t> spool::append(const std::string& job, std::uint32_t stream,
                                      std::span<const char> data) {
  if (auto known = jobs_.find(job); known != jobs_.end() && known->second.ended)
    return fail(ec::conflict, "spool: job " + job + " has ended");
  if (data.size() > bytes_max_ || !make_room(data.size()))
    return fail(ec::no_capacity, "spool: all " + std::to_string(bytes_max_) + " bytes are in use");
  auto file = make(job, stream);
  if (!file)
    return file.error();
  stream_file& to = **file;
  std::size_t done = 0;
  while (done < data.size()) {
    ssize_t wrote =
        pwrite(to.fd, data.data() + done, data.size() - done, static_cast<off_t>(to.size + done));
    if (wrote < 0 && errno == EINTR)
      continue;
    if (wrote <= 0) {
      error failed = why("cannot write");
      if (ftruncate(to.fd, static_cast<off_t>(to.size)) != 0)
        return failed; // what stands beyond the size is never read
      return failed;
    }
    done += static_cast<std::size_t>(wrote);
  }
  to.size += data.size();
  bytes_ += data.size();
  return to.size;
}

expected<std::vector<char>> spool::read(const std::string& job, std::uint32_t stream,
                                        std::uint64_t offset, std::size_t bytes_max) const {
  const stream_file* from = find(job, stream);
  if (from == nullptr)
    return fail(ec::not_found, "spool: nothing is kept of job " + job);
  if (offset >= from->size)
    return std::vector<char>{};
  std::vector<char> data(std::min<std::uint64_t>(bytes_max, from->size - offset));
  std::size_t done = 0;
  while (done < data.size()) {
    ssize_t got =
        pread(from->fd, data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return why("cannot read");
    done += static_cast<std::size_t>(got);
  }
  return data;
}

std::uint64_t spool::size(const std::string& job, std::uint32_t stream) const {
  const stream_file* file = find(job, stream);
  return file == nullptr ? 0 : file->size;
}

void spool::end(const std::string& job) {
  auto files = jobs_.find(job);
  if (files == jobs_.end() || files->second.ended)
    return;
  files->second.ended = true;
  files->second.place = ended_.insert(ended_.end(), job);
}

void spool::remove(const std::string& job) {
  auto files = jobs_.find(job);
  if (files == jobs_.end())
    return;
  for (auto& [stream, file] : files->second.streams) {
    bytes_ -= file.size;
    --files_;
    close(file.fd);
  }
  if (files->second.ended)
    ended_.erase(files->second.place);
  jobs_.erase(files);
}

} // namespace berth
