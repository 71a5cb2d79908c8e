// SPDX-License-Identifier: Apache-2.0
#include "store/record_log.hpp"

#include "config/limits.hpp"
#include "store/checksum.hpp"
#include "store/durable.hpp"

#include <sys/random.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>
#include <utility>

namespace berth {

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::uint64_t head_magic = 0x31474F4C48545242; // "BRTHLOG1"
constexpr std::uint32_t record_magic = 0x43455242;       // "BREC"
constexpr std::string_view name_begin = "journal-";
constexpr std::string_view name_end = ".log";
constexpr std::string_view unnamed = "/journal-next.log";

struct segment_head {
  std::uint64_t magic = head_magic;
  std::uint64_t segment = 0;
  std::uint64_t salt = 0;
  std::uint64_t sum = 0;
};
static_assert(2 * sizeof(segment_head) == log_head_bytes);

struct record_head {
  std::uint32_t magic = record_magic;
  std::uint32_t size = 0;
  std::uint64_t sum = 0;
};
static_assert(sizeof(record_head) == log_room(0));

template <class T>
std::span<const char> raw(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::uint64_t sum_of(const segment_head& head) {
  return checksum({raw(head.magic), raw(head.segment), raw(head.salt)});
}

std::uint64_t sum_of(std::uint64_t salt, std::uint64_t offset, std::span<const char> payload) {
  return checksum({raw(salt), raw(offset), payload});
}

std::string path_of(const std::string& dir, std::uint64_t segment) {
  std::array<char, 17> digits{};
  std::snprintf(digits.data(), digits.size(), "%016llx", static_cast<unsigned long long>(segment));
  return dir + "/" + std::string{name_begin} + digits.data() + std::string{name_end};
}

error broken(const std::string& what) {
  return fail(ec::store_failed, "journal: " + what + ": " + std::strerror(errno));
}

/// Writes all of it; false with errno.
bool write_all(int fd, std::span<const char> data, std::uint64_t offset) {
  while (!data.empty()) {
    ssize_t done = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR)
      continue;
    if (done <= 0)
      return false;
    data = data.subspan(static_cast<std::size_t>(done));
    offset += static_cast<std::uint64_t>(done);
  }
  return true;
}

} // namespace

// --- reading -------------------------------------------------------------------------------------

std::optional<std::span<const char>> log_scanner::next() {
  auto rest = data_.subspan(at_);
  record_head head;
  if (rest.size() < sizeof head)
    return std::nullopt;
  std::memcpy(&head, rest.data(), sizeof head);
  if (head.magic != record_magic || head.size > rest.size() - sizeof head)
    return std::nullopt;
  auto payload = rest.subspan(sizeof head, head.size);
  if (head.sum != sum_of(salt_, offset(), payload))
    return std::nullopt;
  at_ = std::min<std::uint64_t>(at_ + log_room(head.size), data_.size());
  return payload;
}

bool log_scanner::resume() {
  std::uint64_t from = at_;
  for (at_ += 8; at_ + sizeof(record_head) <= data_.size(); at_ += 8) {
    std::uint64_t here = at_;
    if (next()) {
      at_ = here;
      return true;
    }
  }
  at_ = from;
  return false;
}

bool log_scanner::is_torn() const {
  return std::ranges::any_of(data_.subspan(at_), [](char byte) { return byte != 0; });
}

std::vector<std::uint64_t> list_segments(const std::string& dir) {
  std::vector<std::uint64_t> found;
  std::error_code failed;
  for (const auto& file : std::filesystem::directory_iterator{dir, failed}) {
    std::string name = file.path().filename();
    if (name.size() != name_begin.size() + 16 + name_end.size() || !name.starts_with(name_begin)
        || !name.ends_with(name_end))
      continue;
    const char* digits = name.data() + name_begin.size();
    std::uint64_t number = 0;
    auto [end, wrong] = std::from_chars(digits, digits + 16, number, 16);
    if (wrong == std::errc{} && end == digits + 16)
      found.push_back(number);
  }
  std::ranges::sort(found);
  return found;
}

void remove_segment(const std::string& dir, std::uint64_t segment) {
  ::unlink(path_of(dir, segment).c_str());
}

void set_segment_aside(const std::string& dir, std::uint64_t segment) {
  std::string path = path_of(dir, segment);
  ::rename(path.c_str(), (path + ".damaged").c_str());
}

expected<log_reader> log_reader::open(const std::string& dir, std::uint64_t segment) {
  log_reader made;
  std::string path = path_of(dir, segment);
  made.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat about {};
  if (made.fd_ < 0 || ::fstat(made.fd_, &about) != 0)
    return broken("open " + path);
  made.size_ = static_cast<std::uint64_t>(about.st_size);
  std::array<segment_head, 2> heads;
  if (::pread(made.fd_, heads.data(), sizeof heads, 0) == static_cast<ssize_t>(sizeof heads))
    for (const segment_head& head : heads)
      if (head.magic == head_magic && head.segment == segment && head.sum == sum_of(head)) {
        made.salt_ = head.salt;
        return made;
      }
  return fail(ec::store_failed, "journal: " + path + " has no head");
}

log_reader::log_reader(log_reader&& other) noexcept
  : fd_(std::exchange(other.fd_, -1))
  , salt_(other.salt_)
  , size_(other.size_) {}

log_reader::~log_reader() {
  if (fd_ >= 0)
    ::close(fd_);
}

expected<std::vector<char>> log_reader::read(std::uint64_t offset, std::uint64_t most) const {
  std::vector<char> data(static_cast<std::size_t>(most));
  std::size_t got = 0;
  while (got < data.size()) {
    ssize_t more =
        ::pread(fd_, data.data() + got, data.size() - got, static_cast<off_t>(offset + got));
    if (more < 0 && errno == EINTR)
      continue;
    if (more < 0)
      return broken("read the log");
    if (more == 0)
      break;
    got += static_cast<std::size_t>(more);
  }
  data.resize(got);
  return data;
}

// --- writing -------------------------------------------------------------------------------------

log_writer::log_writer(std::string dir, std::uint64_t segment, std::uint64_t segment_bytes)
  : dir_(std::move(dir))
  , segment_(segment)
  , segment_bytes_(segment_bytes) {}

log_writer::~log_writer() {
  close_segment();
}

void log_writer::close_segment() {
  if (fd_ < 0)
    return;
  ::close(fd_);
  fd_ = -1;
  ++segment_;
  end_ = log_head_bytes;
  dirty_ = false;
}

error log_writer::begin_segment() {
  // It gets its name when it has its head: a segment that has a name is whole.
  std::string path = dir_ + std::string{unnamed};
  int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0)
    return broken("make " + path);
  segment_head head{.segment = segment_};
  auto drop = [&](const std::string& what) {
    error why = broken(what);
    ::close(fd);
    ::unlink(path.c_str());
    return why;
  };
  if (::getrandom(&head.salt, sizeof head.salt, 0) != static_cast<ssize_t>(sizeof head.salt))
    return drop("random numbers");
  head.sum = sum_of(head);
  std::array<segment_head, 2> heads{head, head};
  if (int wrong = ::posix_fallocate(fd, 0, static_cast<off_t>(segment_bytes_)); wrong != 0) {
    errno = wrong;
    return drop("allocate " + path);
  }
  if (!write_all(fd, raw(heads), 0) || ::fsync(fd) != 0)
    return drop("begin " + path);
  std::string named = path_of(dir_, segment_);
  if (::rename(path.c_str(), named.c_str()) != 0)
    return drop("name " + named);
  path = named;
  if (sync_directory(dir_))
    return drop("name " + named);
  fd_ = fd;
  salt_ = head.salt;
  end_ = log_head_bytes;
  written_over_ = log_head_bytes;
  return {};
}

/// Writes zeros up to `place` and somewhat further. A block that was allocated and never written
/// has to be noted as written in the file system's own journal, which makes a sync half as dear
/// again: this way it happens once for many records.
bool log_writer::clear_ahead(std::uint64_t place) {
  static constexpr std::array<char, 256 * limits::kib> zeros{};
  while (written_over_ < place) {
    std::uint64_t size =
        std::min<std::uint64_t>(zeros.size(), std::max(segment_bytes_, place) - written_over_);
    if (!write_all(fd_, std::span{zeros}.first(size), written_over_))
      return false;
    written_over_ += size;
  }
  return true;
}

void log_writer::add(std::span<const char> payload) {
  auto size = static_cast<std::uint32_t>(payload.size());
  auto head = raw(size);
  added_.insert(added_.end(), head.begin(), head.end());
  added_.insert(added_.end(), payload.begin(), payload.end());
}

/// Forgets the segment's end that may be half written: it must not lie between sound records.
error log_writer::give_up(error why) {
  if (fd_ >= 0) {
    (void)!::ftruncate(fd_, static_cast<off_t>(end_));
    close_segment();
  }
  return why;
}

error log_writer::write() {
  std::vector<char> added = std::exchange(added_, {});
  std::span<const char> rest{added};
  while (!rest.empty()) {
    buffer_.clear();
    if (fd_ < 0)
      if (error why = begin_segment())
        return why;
    std::uint64_t place = end_;
    while (!rest.empty()) {
      std::uint32_t size = 0;
      std::memcpy(&size, rest.data(), sizeof size);
      bool is_first = place == log_head_bytes; // a record larger than a segment has one for itself
      if (place + log_room(size) > segment_bytes_ && !is_first)
        break;
      auto payload = rest.subspan(sizeof size, size);
      record_head head{.size = size, .sum = sum_of(salt_, place, payload)};
      auto bytes_of_head = raw(head);
      buffer_.insert(buffer_.end(), bytes_of_head.begin(), bytes_of_head.end());
      buffer_.insert(buffer_.end(), payload.begin(), payload.end());
      place += log_room(size);
      buffer_.resize(static_cast<std::size_t>(place - end_));
      rest = rest.subspan(sizeof size + size);
    }
    if (!buffer_.empty()) {
      if (!clear_ahead(place) || !write_all(fd_, buffer_, end_))
        return give_up(broken("write the log"));
      bytes_written_ += buffer_.size();
      end_ = place;
      dirty_ = true;
    }
    if (!rest.empty()) { // the segment is full
      if (error why = sync())
        return why;
      close_segment();
    }
  }
  // A large batch leaves no large buffers behind.
  added.clear();
  if (added.capacity() <= 1 << 20)
    added_ = std::move(added);
  return {};
}

error log_writer::sync() {
  if (!dirty_)
    return {};
  if (::fdatasync(fd_) != 0)
    return give_up(broken("sync the log"));
  dirty_ = false;
  return {};
}

} // namespace berth
