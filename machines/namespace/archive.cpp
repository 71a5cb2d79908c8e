// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/archive.hpp"

#include "messages/fd.hpp"

#include <climits>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <vector>

namespace berth::machines::archive {

namespace {

constexpr std::size_t buffer_bytes = 256 * 1024;
/// Files with several names that are remembered; the names of others become files of their own.
constexpr std::size_t links_max = 256 * 1024;

bool good_name(std::string_view name) {
  return !name.empty() && name.size() <= name_bytes_max && name != "." && name != ".."
         && name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

// --- reading -------------------------------------------------------------------------------------

/// What is wrong with an archive; thrown and caught in here only.
struct broken {
  std::string why;
};

class reader {
public:
  reader(const source& from, sink& to)
    : from_(from)
    , to_(to)
    , buffer_(buffer_bytes) {}

  void run() {
    std::array<char, 8> start{};
    take(start);
    if (std::string_view{start.data(), start.size()} != magic)
      throw broken{"it is no archive of files"};
    if (std::uint32_t found = number<std::uint32_t>(); found != version)
      throw broken{"it is of version " + std::to_string(found)};
    if (number<std::uint32_t>() != 0)
      throw broken{"it has flags from the future"};
    if (kind() != record::directory)
      throw broken{"it does not begin with a directory"};
    directory(true);
    may_have_attributes_ = true;
    while (!open_.empty()) {
      record what = kind();
      one(what);
      may_have_attributes_ = what == record::directory || what == record::file
                             || (what == record::attribute && may_have_attributes_);
    }
    if (kind() != record::end)
      throw broken{"records follow the root's end"};
    if (number<std::uint64_t>() != records_ - 1)
      throw broken{"the number of its records is another"};
    if (fill() != 0)
      throw broken{"bytes follow its end"};
  }

  std::uint64_t offset() const { return total_ - (end_ - begin_); }

private:
  void one(record what) {
    switch (what) {
    case record::directory:
      return directory(false);
    case record::leave:
      check(to_.leave(open_.back()));
      open_.pop_back();
      return;
    case record::file:
      return file();
    case record::hard_link: {
      std::string target = text(PATH_MAX - 1);
      if (!good_path(target))
        throw broken{"a hard link's target is no path"};
      return check(to_.hard_link(name(), target));
    }
    case record::symbolic_link: {
      attributes of = about();
      std::string target = text(target_bytes_max);
      if (target.empty() || target.find('\0') != std::string::npos)
        throw broken{"a symbolic link leads nowhere"};
      return check(to_.symbolic_link(name(), of, target));
    }
    case record::pipe: {
      attributes of = about();
      return check(to_.pipe(name(), of));
    }
    case record::whiteout:
      return check(to_.whiteout(name()));
    case record::attribute:
      return attribute();
    case record::end:
      throw broken{"it ends within a directory"};
    }
    throw broken{"a record is of no known kind"};
  }

  void directory(bool root) {
    attributes of = about();
    auto opaque = number<std::uint8_t>();
    std::string called = text(name_bytes_max);
    if (root ? !called.empty() : !good_name(called))
      throw broken{"a name is none"};
    if (opaque > 1 || open_.size() >= depth_max)
      throw broken{opaque > 1 ? "a mark is none" : "directories are nested too deep"};
    check(to_.enter(called, of, opaque == 1));
    open_.push_back(of);
  }

  void file() {
    attributes of = about();
    auto size = number<std::uint64_t>();
    if (size > INT64_MAX)
      throw broken{"a file is larger than files can be"};
    check(to_.file(name(), of, size));
    std::uint64_t at = 0;
    for (;;) {
      auto offset = number<std::uint64_t>();
      auto length = number<std::uint64_t>();
      if (length == 0) {
        if (offset != size)
          throw broken{"a file's data ends elsewhere than it should"};
        break;
      }
      if (offset < at || offset > size || length > size - offset)
        throw broken{"a file's data is outside it"};
      at = offset + length;
      while (length > 0) {
        if (begin_ == end_ && fill() == 0)
          throw broken{"it is cut off"};
        std::size_t part = std::min<std::uint64_t>(length, end_ - begin_);
        check(to_.data(offset, {buffer_.data() + begin_, part}));
        begin_ += part;
        offset += part;
        length -= part;
      }
    }
    check(to_.file_end(of));
  }

  void attribute() {
    std::string called = text(name_bytes_max);
    auto size = number<std::uint32_t>();
    if (!may_have_attributes_ || !is_program_attribute(called)
        || called.find('\0') != std::string::npos || size > value_bytes_max)
      throw broken{"an attribute is none"};
    std::string value(size, '\0');
    take(value);
    check(to_.attribute(called, value));
  }

  static bool good_path(std::string_view path) {
    while (!path.empty()) {
      auto slash = path.find('/');
      if (!good_name(path.substr(0, slash)))
        return false;
      if (slash == std::string_view::npos)
        return true;
      path.remove_prefix(slash + 1);
    }
    return false;
  }

  record kind() {
    if (++records_ > records_max)
      throw broken{"it has too many records"};
    return static_cast<record>(number<std::uint8_t>());
  }

  attributes about() {
    attributes of;
    of.mode = number<std::uint16_t>();
    auto whose = number<std::uint8_t>();
    of.mtime_s = static_cast<std::int64_t>(number<std::uint64_t>());
    of.mtime_ns = number<std::uint32_t>();
    if ((of.mode & ~07777) != 0 || whose > 1 || of.mtime_ns >= 1'000'000'000)
      throw broken{"a file's attributes are none"};
    of.whose = static_cast<owner>(whose);
    return of;
  }

  std::string name() {
    std::string called = text(name_bytes_max);
    if (!good_name(called))
      throw broken{"a name is none"};
    return called;
  }

  std::string text(std::size_t size_max) {
    auto size = number<std::uint16_t>();
    if (size > size_max)
      throw broken{"a text is too long"};
    std::string read(size, '\0');
    take(read);
    return read;
  }

  template <class T>
  T number() {
    std::array<char, sizeof(T)> raw{};
    take(raw);
    T value = 0;
    for (std::size_t i = sizeof(T); i-- > 0;)
      value = static_cast<T>(static_cast<std::uint64_t>(value) << 8
                             | static_cast<unsigned char>(raw[i]));
    return value;
  }

  void take(std::span<char> to) {
    while (!to.empty()) {
      if (begin_ == end_ && fill() == 0)
        throw broken{"it is cut off"};
      std::size_t part = std::min(to.size(), end_ - begin_);
      std::memcpy(to.data(), buffer_.data() + begin_, part);
      begin_ += part;
      to = to.subspan(part);
    }
  }

  /// Reads more when nothing is left. Returns how many bytes came.
  std::size_t fill() {
    if (begin_ != end_)
      return end_ - begin_;
    ssize_t got = from_(buffer_);
    if (got < 0)
      throw broken{std::string{"it cannot be read: "} + std::strerror(errno)};
    begin_ = 0;
    end_ = static_cast<std::size_t>(got);
    total_ += end_;
    return end_;
  }

  void check(int error) {
    if (error != 0)
      throw broken{std::strerror(error)};
  }

  const source& from_;
  sink& to_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::uint64_t total_ = 0;
  std::uint64_t records_ = 0;
  /// The record before is one that attributes may follow.
  bool may_have_attributes_ = false;
  std::vector<attributes> open_;
};

// --- writing -------------------------------------------------------------------------------------

class writer : public layer_visitor {
public:
  writer(bool all_agents, int to, std::uint64_t bytes_max)
    : all_agents_(all_agents)
    , to_(to)
    , bytes_max_(bytes_max) {
    buffer_.reserve(buffer_bytes);
  }

  void begin() {
    put(magic);
    number(version);
    number(std::uint32_t{0});
  }
  int finish() {
    std::uint64_t records = records_;
    kind(record::end);
    number(records);
    flush();
    return error_;
  }
  std::uint64_t bytes() const { return written_; }
  std::uint64_t skipped() const { return skipped_; }

  int enter(int dir, std::string_view name, const struct stat& info, bool opaque) override {
    kind(record::directory);
    about(info);
    number(static_cast<std::uint8_t>(opaque));
    text(name);
    ends_.push_back(path_.size());
    if (!name.empty())
      path_.append(path_.empty() ? "" : "/").append(name);
    return attributes_of(dir);
  }
  int leave() override {
    kind(record::leave);
    path_.resize(ends_.back());
    ends_.pop_back();
    return error_;
  }
  int entry(int dir, const char* name, const struct stat& info) override {
    if (S_ISREG(info.st_mode))
      return file(dir, name, info);
    if (S_ISLNK(info.st_mode))
      return link(dir, name, info);
    if (S_ISFIFO(info.st_mode)) {
      kind(record::pipe);
      about(info);
      text(name);
    } else if (is_whiteout(info)) {
      kind(record::whiteout);
      text(name);
    } else {
      ++skipped_;
    }
    return error_;
  }

private:
  int link(int dir, const char* name, const struct stat& info) {
    char target[target_bytes_max + 1];
    ssize_t size = ::readlinkat(dir, name, target, sizeof target);
    if (size < 0)
      return errno;
    if (size == 0 || static_cast<std::size_t>(size) > target_bytes_max)
      return ++skipped_, 0;
    kind(record::symbolic_link);
    about(info);
    text({target, static_cast<std::size_t>(size)});
    text(name);
    return error_;
  }

  int file(int dir, const char* name, const struct stat& info) {
    if (info.st_nlink > 1) {
      std::string path = path_ + (path_.empty() ? "" : "/") + name;
      auto key = std::pair{info.st_dev, info.st_ino};
      if (auto first = first_names_.find(key); first != first_names_.end()) {
        kind(record::hard_link);
        text(first->second);
        text(name);
        return error_;
      }
      if (path.size() < PATH_MAX && first_names_.size() < links_max)
        first_names_.emplace(key, std::move(path));
    }
    owned_fd from{::openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)};
    if (!from)
      return errno;
    auto size = static_cast<std::uint64_t>(info.st_size);
    kind(record::file);
    about(info);
    number(size);
    text(name);
    // Holes stay holes.
    for (std::uint64_t at = 0; at < size && error_ == 0;) {
      off_t data = ::lseek(from.get(), static_cast<off_t>(at), SEEK_DATA);
      if (data < 0)
        break; // nothing but a hole follows
      off_t hole = ::lseek(from.get(), data, SEEK_HOLE);
      if (hole < 0)
        return errno;
      at = std::min(static_cast<std::uint64_t>(hole), size);
      if (int error = segment(from.get(), static_cast<std::uint64_t>(data), at))
        return error;
    }
    number(size);
    number(std::uint64_t{0});
    return attributes_of(from.get());
  }

  int attributes_of(int fd) {
    if (int error = list_attributes(fd, names_))
      return error;
    for (const auto& name : names_) {
      if (!is_program_attribute(name))
        continue;
      if (int error = read_attribute(fd, name, value_))
        return error;
      kind(record::attribute);
      text(name);
      number(static_cast<std::uint32_t>(value_.size()));
      put({value_.data(), value_.size()});
    }
    return error_;
  }

  int segment(int from, std::uint64_t begin, std::uint64_t end) {
    number(begin);
    number(end - begin);
    while (begin < end && error_ == 0) {
      if (buffer_.size() == buffer_bytes)
        flush();
      std::size_t before = buffer_.size();
      std::size_t part = std::min<std::uint64_t>(end - begin, buffer_bytes - before);
      buffer_.resize(before + part);
      ssize_t got = ::pread(from, buffer_.data() + before, part, static_cast<off_t>(begin));
      if (got <= 0 && !(got < 0 && errno == EINTR))
        return got < 0 ? errno : EIO;
      auto count = static_cast<std::size_t>(std::max<ssize_t>(got, 0));
      buffer_.resize(before + count);
      begin += count;
    }
    return error_;
  }

  void kind(record what) {
    ++records_;
    number(static_cast<std::uint8_t>(what));
  }

  void about(const struct stat& info) {
    number(static_cast<std::uint16_t>(info.st_mode & 07777));
    bool agents = all_agents_ || info.st_uid != 0;
    number(static_cast<std::uint8_t>(agents ? owner::agent : owner::root));
    number(static_cast<std::uint64_t>(info.st_mtim.tv_sec));
    number(static_cast<std::uint32_t>(info.st_mtim.tv_nsec));
  }

  void text(std::string_view words) {
    number(static_cast<std::uint16_t>(words.size()));
    put(words);
  }

  template <class T>
  void number(T value) {
    std::array<char, sizeof(T)> raw{};
    for (std::size_t i = 0; i < sizeof(T); ++i)
      raw[i] = static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i));
    put({raw.data(), raw.size()});
  }

  void put(std::string_view raw) {
    if (buffer_.size() + raw.size() > buffer_bytes)
      flush();
    buffer_.insert(buffer_.end(), raw.begin(), raw.end());
  }

  void flush() {
    std::size_t done = 0;
    if (error_ == 0 && written_ + buffer_.size() > bytes_max_)
      error_ = EFBIG;
    while (error_ == 0 && done < buffer_.size()) {
      ssize_t count = ::write(to_, buffer_.data() + done, buffer_.size() - done);
      if (count < 0 && errno == EINTR)
        continue;
      if (count <= 0)
        error_ = count < 0 ? errno : EIO;
      else
        done += static_cast<std::size_t>(count);
    }
    written_ += done;
    buffer_.clear();
  }

  bool all_agents_;
  int to_;
  std::uint64_t bytes_max_;
  std::vector<char> buffer_;
  std::uint64_t written_ = 0;
  std::uint64_t skipped_ = 0;
  std::uint64_t records_ = 0;
  int error_ = 0;
  /// Where the walk is.
  std::string path_;
  std::vector<std::size_t> ends_;
  std::vector<std::string> names_;
  std::vector<char> value_;
  std::map<std::pair<dev_t, ino_t>, std::string> first_names_;
};

} // namespace

std::string read(const source& from, sink& to) {
  reader one{from, to};
  try {
    one.run();
    return {};
  } catch (const broken& error) {
    return "archive, byte " + std::to_string(one.offset()) + ": " + error.why;
  }
}

written write(const walked_layers& layers, int to, std::uint64_t bytes_max) {
  writer into{layers.ordinary_user, to, bytes_max};
  into.begin();
  int error = walk_layers(layers, into);
  if (error == 0)
    error = into.finish();
  return {.bytes = into.bytes(), .skipped = into.skipped(), .error = error};
}

} // namespace berth::machines::archive
