// SPDX-License-Identifier: Apache-2.0
#include "machines/vm/vm_files.hpp"

#include "machines/image/digest.hpp"
#include "machines/vm/vm_memory.hpp"

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <vector>

namespace berth::machines::vm_files {

namespace {

using json = nlohmann::json;
using vm_memory::run;

constexpr std::size_t copy_bytes = std::size_t{1} << 20;
constexpr std::size_t digest_digits = 64;
/// States name their template by so much of its digest.
constexpr std::size_t id_digits = 32;
constexpr std::uint64_t devices_bytes_max = 64ULL << 20;
constexpr std::uint64_t facts_bytes_max = 64ULL << 10;
constexpr std::uint64_t runs_max = 1ULL << 24;

struct template_head {
  char magic[8] = {'B', 'V', 'M', 'T', 'M', 'P', 'L', '1'};
  std::uint64_t memory_bytes = 0;
  std::uint64_t runs = 0;
  std::uint64_t devices_bytes = 0;
  std::uint64_t facts_bytes = 0;
};

struct state_head {
  char magic[8] = {'B', 'V', 'M', 'S', 'T', 'A', 'T', '1'};
  char key[16] = {};
  char template_id[id_digits] = {};
  std::uint64_t devices_bytes = 0;
  std::uint64_t pages_bytes = 0;
};

std::string error_of(const std::string& what) {
  return what + ": " + std::strerror(errno);
}

/// Writes in order, and sums up.
class writer {
public:
  writer(int to, std::uint64_t bytes_max)
    : to_(to)
    , bytes_max_(bytes_max) {}

  bool add(const void* data, std::size_t size) {
    sum_.add({static_cast<const char*>(data), size});
    return write(data, size);
  }
  bool add_from(int from, std::uint64_t at, std::uint64_t size) {
    while (size > 0) {
      auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(size, room_.size()));
      ssize_t count = ::pread(from, room_.data(), wanted, static_cast<off_t>(at));
      if (count <= 0 || !add(room_.data(), static_cast<std::size_t>(count)))
        return false;
      at += static_cast<std::uint64_t>(count);
      size -= static_cast<std::uint64_t>(count);
    }
    return true;
  }
  bool end() {
    digest_ = sum_.hex();
    return write(digest_.data(), digest_.size());
  }
  std::uint64_t bytes() const { return bytes_; }
  const std::string& digest_text() const { return digest_; }

private:
  bool write(const void* data, std::size_t size) {
    if (bytes_ + size > bytes_max_)
      return errno = EFBIG, false;
    const char* from = static_cast<const char*>(data);
    while (size > 0) {
      ssize_t count = ::write(to_, from, size);
      if (count < 0 && errno == EINTR)
        continue;
      if (count <= 0)
        return false;
      from += count;
      size -= static_cast<std::size_t>(count);
      bytes_ += static_cast<std::uint64_t>(count);
    }
    return true;
  }

  int to_;
  std::uint64_t bytes_max_;
  std::uint64_t bytes_ = 0;
  digest sum_;
  std::string digest_;
  std::vector<char> room_ = std::vector<char>(copy_bytes);
};

/// Reads in order, and sums up.
class reader {
public:
  explicit reader(int from)
    : from_(from) {}

  bool take(void* data, std::size_t size) {
    if (!read(data, size))
      return false;
    sum_.add({static_cast<const char*>(data), size});
    return true;
  }
  bool take_to(int to, std::uint64_t at, std::uint64_t size) {
    while (size > 0) {
      auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(size, room_.size()));
      if (!take(room_.data(), wanted))
        return false;
      for (std::size_t done = 0; done < wanted;) {
        ssize_t count =
            ::pwrite(to, room_.data() + done, wanted - done, static_cast<off_t>(at + done));
        if (count <= 0)
          return false;
        done += static_cast<std::size_t>(count);
      }
      at += wanted;
      size -= wanted;
    }
    return true;
  }
  /// Whether the file ends here, with the right digest.
  bool ends_well() {
    digest_ = sum_.hex();
    char said[digest_digits];
    char more = 0;
    return read(said, sizeof said) && digest_ == std::string_view{said, sizeof said}
           && ::pread(from_, &more, 1, static_cast<off_t>(at_)) == 0;
  }
  const std::string& digest_text() const { return digest_; }
  std::uint64_t bytes() const { return at_; }

private:
  bool read(void* data, std::size_t size) {
    char* to = static_cast<char*>(data);
    while (size > 0) {
      ssize_t count = ::pread(from_, to, size, static_cast<off_t>(at_));
      if (count < 0 && errno == EINTR)
        continue;
      if (count <= 0)
        return false;
      to += count;
      size -= static_cast<std::size_t>(count);
      at_ += static_cast<std::uint64_t>(count);
    }
    return true;
  }

  int from_;
  std::uint64_t at_ = 0;
  digest sum_;
  std::string digest_;
  std::vector<char> room_ = std::vector<char>(copy_bytes);
};

/// The parts of a sparse file that hold anything.
std::vector<run> data_of(int fd, std::uint64_t size) {
  std::vector<run> all;
  for (off_t at = 0; static_cast<std::uint64_t>(at) < size;) {
    off_t begin = ::lseek(fd, at, SEEK_DATA);
    if (begin < 0)
      break;
    off_t end = ::lseek(fd, begin, SEEK_HOLE);
    if (end < 0)
      break;
    all.push_back({.offset = static_cast<std::uint64_t>(begin),
                   .bytes = static_cast<std::uint64_t>(end - begin)});
    at = end;
  }
  return all;
}

std::uint64_t size_of(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
}

json facts_of(const vm_template& from) {
  return {{"key", from.key},
          {"accelerator", name_of(from.shape.runs_by)},
          {"vcpus", from.shape.vcpus},
          {"memory_mib", from.shape.memory_mib},
          {"translation_mib", from.shape.translation_mib},
          {"acpi", from.shape.acpi},
          {"network", from.shape.network},
          {"version", from.hello.version},
          {"languages", from.hello.languages},
          {"warm", from.warm}};
}

bool take_facts(const std::string& text, vm_template& to) {
  json facts = json::parse(text, nullptr, false);
  if (!facts.is_object())
    return false;
  auto text_at = [&](const char* name) {
    auto found = facts.find(name);
    return found != facts.end() && found->is_string() ? found->get<std::string>() : std::string{};
  };
  auto number_at = [&](const char* name) -> std::uint64_t {
    auto found = facts.find(name);
    return found != facts.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
  };
  auto list_at = [&](const char* name) {
    std::vector<std::string> all;
    auto found = facts.find(name);
    if (found != facts.end() && found->is_array())
      for (const auto& one : *found)
        if (one.is_string())
          all.push_back(one.get<std::string>());
    return all;
  };
  to.key = text_at("key");
  to.shape.runs_by = text_at("accelerator") == "kvm" ? accelerator::kvm : accelerator::tcg;
  to.shape.vcpus = static_cast<std::uint32_t>(number_at("vcpus"));
  to.shape.memory_mib = number_at("memory_mib");
  to.shape.translation_mib = number_at("translation_mib");
  auto truth_at = [&](const char* name) {
    auto found = facts.find(name);
    return found != facts.end() && found->is_boolean() && found->get<bool>();
  };
  to.shape.acpi = truth_at("acpi");
  to.shape.network = truth_at("network");
  to.hello.version = static_cast<std::uint32_t>(number_at("version"));
  to.hello.languages = list_at("languages");
  to.warm = list_at("warm");
  return to.hello.version == guest::protocol_version && to.shape.memory_mib > 0;
}

bool write_all_of(writer& out, const vm_template& from) {
  std::uint64_t size = from.shape.memory_mib << 20;
  auto runs = data_of(from.memory->get(), size);
  std::string facts = facts_of(from).dump();
  template_head head;
  head.memory_bytes = size;
  head.runs = runs.size();
  head.devices_bytes = size_of(from.state.devices->get());
  head.facts_bytes = facts.size();
  if (!out.add(&head, sizeof head) || !out.add(runs.data(), runs.size() * sizeof(run))
      || !out.add_from(from.state.devices->get(), 0, head.devices_bytes)
      || !out.add(facts.data(), facts.size()))
    return false;
  for (const auto& one : runs)
    if (!out.add_from(from.memory->get(), one.offset, one.bytes))
      return false;
  return out.end();
}

bool sound(const std::vector<run>& runs, std::uint64_t memory_bytes) {
  std::uint64_t after = 0;
  for (const auto& one : runs) {
    if (one.offset < after || one.offset >= memory_bytes || one.bytes == 0
        || one.bytes > memory_bytes - one.offset)
      return false;
    after = one.offset + one.bytes;
  }
  return true;
}

bool read_all_of(reader& in, vm_template& to, owned_fd& memory, owned_fd& devices) {
  template_head head;
  const template_head wanted;
  if (!in.take(&head, sizeof head) || std::memcmp(head.magic, wanted.magic, sizeof head.magic) != 0
      || head.runs > runs_max || head.memory_bytes > vm_memory::bytes_max
      || head.devices_bytes > devices_bytes_max || head.facts_bytes > facts_bytes_max)
    return false;
  std::vector<run> runs(head.runs);
  memory = make_memory_file(vm_memory::file_name, head.memory_bytes);
  devices = make_memory_file("berth-vm-devices", 0);
  std::string facts(head.facts_bytes, '\0');
  if (!memory || !devices || !in.take(runs.data(), runs.size() * sizeof(run))
      || !sound(runs, head.memory_bytes) || !in.take_to(devices.get(), 0, head.devices_bytes)
      || !in.take(facts.data(), facts.size()))
    return false;
  for (const auto& one : runs) {
    to.resident_bytes += one.bytes;
    if (!in.take_to(memory.get(), one.offset, one.bytes))
      return false;
  }
  return in.ends_well() && take_facts(facts, to) && to.shape.memory_mib << 20 == head.memory_bytes;
}

} // namespace

outcome write_template(const std::string& path, const vm_template& from, std::string& id) {
  const std::string fresh = path + ".new";
  owned_fd file{::open(fresh.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
  if (!file)
    return {.why = error_of(fresh)};
  // It reads from the template by position, so that others may, too.
  owned_fd memory = reopen(from.memory->get(), O_RDONLY);
  vm_template copy = from;
  copy.memory = std::make_shared<owned_fd>(std::move(memory));
  writer out{file.get(), UINT64_MAX};
  if (!write_all_of(out, copy) || ::fdatasync(file.get()) != 0
      || ::rename(fresh.c_str(), path.c_str()) != 0) {
    std::string why = error_of(fresh);
    ::unlink(fresh.c_str());
    return {.why = why};
  }
  id = out.digest_text().substr(0, id_digits);
  return {.bytes = out.bytes()};
}

std::shared_ptr<vm_template> read_template(const std::string& path, std::string& why) {
  owned_fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file) {
    why = error_of(path);
    return nullptr;
  }
  auto made = std::make_shared<vm_template>();
  owned_fd memory;
  owned_fd devices;
  reader in{file.get()};
  if (!read_all_of(in, *made, memory, devices) || !seal(memory.get()) || !seal(devices.get())) {
    why = path + ": is damaged";
    return nullptr;
  }
  made->id = in.digest_text().substr(0, id_digits);
  made->memory = std::make_shared<owned_fd>(std::move(memory));
  made->state.devices = std::make_shared<owned_fd>(std::move(devices));
  return made;
}

outcome write_state(int to, const vm_state& from, const vm_template& of,
                    const std::string& template_id, std::uint64_t bytes_max) {
  auto pages = from.pages;
  if (!pages && from.whole) {
    // Saved whole: what differs from the template is found by looking.
    pages = std::make_shared<owned_fd>(make_memory_file("berth-vm-pages", 0));
    auto found = vm_memory::differences(of.memory->get(), from.whole->get(),
                                        of.shape.memory_mib << 20, pages->get());
    if (found.error != 0)
      return {.why = found.text};
  }
  if (!pages)
    return {.why = "the state has no memory"};
  state_head head;
  of.key.copy(head.key, sizeof head.key);
  template_id.copy(head.template_id, sizeof head.template_id);
  head.devices_bytes = size_of(from.devices->get());
  head.pages_bytes = size_of(pages->get());
  writer out{to, bytes_max};
  if (!out.add(&head, sizeof head) || !out.add_from(from.devices->get(), 0, head.devices_bytes)
      || !out.add_from(pages->get(), 0, head.pages_bytes) || !out.end())
    return {.why = error_of("writing a machine's state")};
  return {.bytes = out.bytes()};
}

outcome read_state(int from, saved& to) {
  reader in{from};
  state_head head;
  const state_head wanted;
  if (!in.take(&head, sizeof head) || std::memcmp(head.magic, wanted.magic, sizeof head.magic) != 0)
    return {.why = "the saved state is none of a virtual machine"};
  owned_fd devices = make_memory_file("berth-vm-devices", 0);
  owned_fd pages = make_memory_file("berth-vm-pages", 0);
  if (!devices || !pages || head.devices_bytes > devices_bytes_max
      || head.pages_bytes > vm_memory::bytes_max
      || !in.take_to(devices.get(), 0, head.devices_bytes)
      || !in.take_to(pages.get(), 0, head.pages_bytes) || !in.ends_well())
    return {.why = "the saved state is damaged"};
  (void)seal(devices.get());
  (void)seal(pages.get());
  to.key.assign(head.key, sizeof head.key);
  to.template_id.assign(head.template_id, sizeof head.template_id);
  to.state.devices = std::make_shared<owned_fd>(std::move(devices));
  to.state.pages = std::make_shared<owned_fd>(std::move(pages));
  to.state.pages_bytes = head.pages_bytes;
  return {.bytes = in.bytes()};
}

} // namespace berth::machines::vm_files
