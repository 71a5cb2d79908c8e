// SPDX-License-Identifier: Apache-2.0
#include "machines/vm/vm_memory.hpp"

#include "messages/fd.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <unistd.h>

namespace berth::machines::vm_memory {

namespace {

constexpr std::uint64_t page_bytes = 4096;
constexpr std::size_t copy_bytes = std::size_t{1} << 20;
/// Pages whose entries are read at a time.
constexpr std::size_t entries_at_once = 64 * 1024;
constexpr std::uint64_t runs_max = bytes_max / page_bytes;

constexpr std::uint64_t entry_present = 1ULL << 63;
constexpr std::uint64_t entry_swapped = 1ULL << 62;
constexpr std::uint64_t entry_of_file = 1ULL << 61;

struct mapping {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t offset = 0; ///< in the memory file
};

outcome failed(const char* what) {
  return {.error = errno == 0 ? EIO : errno,
          .text = std::string{what} + ": " + std::strerror(errno)};
}

owned_fd open_of(int proc, pid_t pid, const char* name, int flags) {
  std::string path = std::to_string(pid) + "/" + name;
  return owned_fd{::openat(proc, path.c_str(), flags | O_CLOEXEC)};
}

/// Where the process has the memory file mapped, in the order of the file.
std::vector<mapping> mappings_of(int proc, pid_t pid) {
  std::vector<mapping> found;
  owned_fd maps = open_of(proc, pid, "maps", O_RDONLY);
  if (!maps)
    return found;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> in{::fdopen(maps.release(), "re"), &std::fclose};
  const std::string path = std::string{"/memfd:"} + file_name;
  char line[1024];
  while (in && std::fgets(line, sizeof line, in.get()) != nullptr) {
    mapping one;
    char mode[8] = {};
    if (std::strstr(line, path.c_str()) != nullptr
        && std::sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64, &one.begin, &one.end, mode,
                       &one.offset)
               == 4
        && mode[0] == 'r' && mode[1] == 'w' && one.begin < one.end)
      found.push_back(one);
  }
  std::sort(found.begin(), found.end(),
            [](const mapping& a, const mapping& b) { return a.offset < b.offset; });
  return found;
}

/// The runs of pages of a mapping that are the process's own. None goes on in another mapping,
/// where it could not be read at one address.
bool add_runs(int pagemap, const mapping& at, std::vector<run>& runs) {
  auto entries = std::make_unique<std::array<std::uint64_t, entries_at_once>>();
  std::uint64_t pages = (at.end - at.begin) / page_bytes;
  const std::size_t of_others = runs.size();
  for (std::uint64_t page = 0; page < pages;) {
    std::size_t wanted =
        std::min<std::uint64_t>(entries_at_once, pages - page) * sizeof(std::uint64_t);
    auto place = static_cast<off_t>((at.begin / page_bytes + page) * sizeof(std::uint64_t));
    ssize_t count = ::pread(pagemap, entries->data(), wanted, place);
    if (count <= 0)
      return false;
    auto read = static_cast<std::size_t>(count) / sizeof(std::uint64_t);
    for (std::size_t i = 0; i < read; ++i, ++page) {
      std::uint64_t entry = (*entries)[i];
      bool own = (entry & entry_swapped) != 0
                 || ((entry & entry_present) != 0 && (entry & entry_of_file) == 0);
      if (!own)
        continue;
      std::uint64_t offset = at.offset + page * page_bytes;
      if (runs.size() > of_others && runs.back().offset + runs.back().bytes == offset)
        runs.back().bytes += page_bytes;
      else
        runs.push_back({.offset = offset, .bytes = page_bytes});
    }
  }
  return true;
}

bool write_all(int to, const void* data, std::size_t size, std::uint64_t at) {
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    ssize_t count = ::pwrite(to, from, size, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return false;
    from += count;
    at += static_cast<std::uint64_t>(count);
    size -= static_cast<std::size_t>(count);
  }
  return true;
}

bool copy(int from, std::uint64_t from_at, int to, std::uint64_t to_at, std::uint64_t size,
          char* room) {
  while (size > 0) {
    auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(size, copy_bytes));
    ssize_t count = ::pread(from, room, wanted, static_cast<off_t>(from_at));
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0 || !write_all(to, room, static_cast<std::size_t>(count), to_at))
      return false;
    from_at += static_cast<std::uint64_t>(count);
    to_at += static_cast<std::uint64_t>(count);
    size -= static_cast<std::uint64_t>(count);
  }
  return true;
}

/// Where in the process's address space a place in its memory is; 0 if it is not all there.
std::uint64_t address_of(const std::vector<mapping>& at, const run& wanted) {
  for (const auto& one : at)
    if (wanted.offset >= one.offset
        && wanted.offset + wanted.bytes <= one.offset + (one.end - one.begin))
      return one.begin + (wanted.offset - one.offset);
  return 0;
}

} // namespace

outcome read_pages(int proc, pid_t pid, int to, std::uint64_t most) {
  auto at = mappings_of(proc, pid);
  owned_fd pagemap = open_of(proc, pid, "pagemap", O_RDONLY);
  owned_fd memory = open_of(proc, pid, "mem", O_RDONLY);
  if (at.empty() || !pagemap || !memory)
    return failed("the machine's memory");
  std::vector<run> runs;
  for (const auto& one : at)
    if (!add_runs(pagemap.get(), one, runs))
      return failed("the list of the machine's pages");
  head about{.magic = magic, .runs = runs.size()};
  std::uint64_t table = sizeof about + runs.size() * sizeof(run);
  about.data_at = (table + page_bytes - 1) / page_bytes * page_bytes;
  about.memory_bytes = at.back().offset + (at.back().end - at.back().begin);
  std::uint64_t total = about.data_at;
  for (const auto& one : runs)
    total += one.bytes;
  if (total > most)
    return {.error = EFBIG, .text = "the machine's memory is larger than may be saved"};
  if (!write_all(to, &about, sizeof about, 0)
      || !write_all(to, runs.data(), runs.size() * sizeof(run), sizeof about))
    return failed("writing pages");
  auto room = std::make_unique<char[]>(copy_bytes);
  std::uint64_t place = about.data_at;
  for (const auto& one : runs) {
    if (!copy(memory.get(), address_of(at, one), to, place, one.bytes, room.get()))
      return failed("copying pages");
    place += one.bytes;
  }
  return {.bytes = total};
}

std::vector<run> read_runs(int from, std::uint64_t memory_bytes, head& about, std::string& why) {
  struct stat info {};
  why = "is no file of pages";
  if (::fstat(from, &info) != 0
      || ::pread(from, &about, sizeof about, 0) != static_cast<ssize_t>(sizeof about)
      || about.magic != magic || about.runs > runs_max || about.memory_bytes != memory_bytes)
    return {};
  auto size = static_cast<std::uint64_t>(info.st_size);
  std::uint64_t table = sizeof about + about.runs * sizeof(run);
  if (about.data_at < table || about.data_at > size || about.data_at % page_bytes != 0)
    return {};
  std::vector<run> runs(about.runs);
  if (::pread(from, runs.data(), runs.size() * sizeof(run), sizeof about)
      != static_cast<ssize_t>(runs.size() * sizeof(run)))
    return {};
  std::uint64_t left = size - about.data_at;
  std::uint64_t after = 0;
  for (const auto& one : runs) {
    bool sound = one.offset % page_bytes == 0 && one.bytes % page_bytes == 0 && one.bytes > 0
                 && one.offset >= after && one.offset < memory_bytes
                 && one.bytes <= memory_bytes - one.offset && one.bytes <= left;
    if (!sound)
      return {};
    after = one.offset + one.bytes;
    left -= one.bytes;
  }
  why = left == 0 ? "" : "is longer than its pages";
  return runs;
}

outcome write_pages(int proc, pid_t pid, int from) {
  auto at = mappings_of(proc, pid);
  owned_fd memory = open_of(proc, pid, "mem", O_RDWR);
  if (at.empty() || !memory)
    return failed("the machine's memory");
  head about;
  std::string why;
  auto runs = read_runs(from, at.back().offset + (at.back().end - at.back().begin), about, why);
  if (!why.empty())
    return {.error = EBADMSG, .text = "the saved memory " + why};
  auto room = std::make_unique<char[]>(copy_bytes);
  std::uint64_t place = about.data_at;
  for (const auto& one : runs) {
    std::uint64_t address = address_of(at, one);
    if (address == 0)
      return {.error = EBADMSG, .text = "the saved memory is not this machine's"};
    if (!copy(from, place, memory.get(), address, one.bytes, room.get()))
      return failed("putting pages in place");
    place += one.bytes;
  }
  return {.bytes = place};
}

namespace {

/// Where the next data of a file is, from a place on; its size when there is none.
std::uint64_t next_data(int fd, std::uint64_t at, std::uint64_t size) {
  off_t found = ::lseek(fd, static_cast<off_t>(at), SEEK_DATA);
  return found < 0 ? size : std::min(static_cast<std::uint64_t>(found), size);
}

/// Reads a part of a file that may be shorter: what is behind its end is nothing.
bool read_padded(int fd, char* to, std::size_t size, std::uint64_t at) {
  std::size_t have = 0;
  while (have < size) {
    ssize_t count = ::pread(fd, to + have, size - have, static_cast<off_t>(at + have));
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return false;
    if (count == 0)
      break;
    have += static_cast<std::size_t>(count);
  }
  std::memset(to + have, 0, size - have);
  return true;
}

void add_page(std::vector<run>& runs, std::uint64_t offset) {
  if (!runs.empty() && runs.back().offset + runs.back().bytes == offset)
    runs.back().bytes += page_bytes;
  else
    runs.push_back({.offset = offset, .bytes = page_bytes});
}

} // namespace

outcome differences(int base, int memory, std::uint64_t memory_bytes, int to) {
  // Their positions are moved: each has one of its own.
  const std::string of = "/proc/self/fd/";
  owned_fd first{::open((of + std::to_string(base)).c_str(), O_RDONLY | O_CLOEXEC)};
  owned_fd second{::open((of + std::to_string(memory)).c_str(), O_RDONLY | O_CLOEXEC)};
  if (!first || !second)
    return failed("the memory to compare");
  auto room = std::make_unique<char[]>(copy_bytes);
  auto other = std::make_unique<char[]>(copy_bytes);
  std::vector<run> runs;
  for (std::uint64_t at = 0; at < memory_bytes; at += copy_bytes) {
    at = std::min(next_data(first.get(), at, memory_bytes),
                  next_data(second.get(), at, memory_bytes))
         / copy_bytes * copy_bytes;
    if (at >= memory_bytes)
      break;
    auto size = static_cast<std::size_t>(std::min<std::uint64_t>(copy_bytes, memory_bytes - at));
    if (!read_padded(first.get(), room.get(), size, at)
        || !read_padded(second.get(), other.get(), size, at))
      return failed("comparing memory");
    for (std::size_t page = 0; page < size; page += page_bytes)
      if (std::memcmp(room.get() + page, other.get() + page, page_bytes) != 0)
        add_page(runs, at + page);
  }
  head about{.magic = magic, .runs = runs.size(), .data_at = 0, .memory_bytes = memory_bytes};
  std::uint64_t table = sizeof about + runs.size() * sizeof(run);
  about.data_at = (table + page_bytes - 1) / page_bytes * page_bytes;
  if (!write_all(to, &about, sizeof about, 0)
      || !write_all(to, runs.data(), runs.size() * sizeof(run), sizeof about)
      || ::ftruncate(to, static_cast<off_t>(about.data_at)) != 0)
    return failed("writing pages");
  std::uint64_t place = about.data_at;
  for (const auto& one : runs) {
    if (!copy(second.get(), one.offset, to, place, one.bytes, room.get()))
      return failed("copying pages");
    place += one.bytes;
  }
  return {.bytes = place};
}

outcome assemble(int base, int pages, int to) {
  struct stat info {};
  const std::string path = "/proc/self/fd/" + std::to_string(base);
  owned_fd first{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!first || ::fstat(base, &info) != 0 || ::ftruncate(to, info.st_size) != 0)
    return failed("the memory to begin with");
  const auto size = static_cast<std::uint64_t>(info.st_size);
  auto room = std::make_unique<char[]>(copy_bytes);
  const auto nothing = std::make_unique<char[]>(page_bytes);
  for (std::uint64_t at = next_data(first.get(), 0, size) / page_bytes * page_bytes; at < size;
       at = next_data(first.get(), at, size)) {
    auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(copy_bytes, size - at));
    if (!read_padded(first.get(), room.get(), wanted, at))
      return failed("reading memory");
    for (std::size_t page = 0; page < wanted; page += page_bytes) {
      std::size_t part = std::min<std::size_t>(page_bytes, wanted - page);
      if (std::memcmp(room.get() + page, nothing.get(), part) != 0
          && !write_all(to, room.get() + page, part, at + page))
        return failed("writing memory");
    }
    at += wanted;
  }
  if (pages < 0)
    return {.bytes = size};
  head about;
  std::string why;
  auto runs = read_runs(pages, size, about, why);
  if (!why.empty())
    return {.error = EBADMSG, .text = "the saved memory " + why};
  std::uint64_t place = about.data_at;
  for (const auto& one : runs) {
    if (!copy(pages, place, to, one.offset, one.bytes, room.get()))
      return failed("putting pages in place");
    place += one.bytes;
  }
  return {.bytes = size};
}

} // namespace berth::machines::vm_memory
