// SPDX-License-Identifier: Apache-2.0
#include "machines/inside/identity.hpp"

#include <linux/random.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <sched.h>
#include <vector>

namespace berth::machines::inside {

namespace {

constexpr std::size_t entropy_bytes_max = 512;

/// Layout of rand_pool_info, whose buffer has no length in C++.
struct entropy_pool {
  int bits = 0;
  int bytes = 0;
  std::array<char, entropy_bytes_max> data{};
};

int result(long value) {
  return value < 0 ? -errno : 0;
}

/// The first process of a pid namespace below ours, which is the guest; 0 when there is none.
pid_t find_guest() {
  DIR* directory = ::opendir("/proc");
  if (directory == nullptr)
    return 0;
  pid_t found = 0;
  while (const dirent* entry = found == 0 ? ::readdir(directory) : nullptr) {
    pid_t pid = 0;
    const char* end = entry->d_name + std::strlen(entry->d_name);
    if (std::from_chars(entry->d_name, end, pid).ptr != end)
      continue;
    std::ifstream in{std::string{"/proc/"} + entry->d_name + "/status"};
    for (std::string line; std::getline(in, line);)
      if (line.starts_with("NSpid:")) {
        if (line.ends_with("\t1") && std::ranges::count(line, '\t') == 2)
          found = pid;
        break;
      }
  }
  ::closedir(directory);
  return found;
}

} // namespace

int reseed(std::span<const char> entropy) {
  if (entropy.size() < entropy_bytes_min || entropy.size() > entropy_bytes_max)
    return -EINVAL;
  owned_fd random{::open("/dev/urandom", O_WRONLY | O_CLOEXEC)};
  if (!random)
    return -errno;
  entropy_pool pool;
  pool.bytes = static_cast<int>(entropy.size());
  pool.bits = pool.bytes * 8;
  std::ranges::copy(entropy, pool.data.begin());
  if (::ioctl(random.get(), RNDADDENTROPY, &pool) != 0)
    return -errno;
  return result(::ioctl(random.get(), RNDRESEEDCRNG));
}

int set_clock(std::int64_t unix_us) {
  timespec now{};
  now.tv_sec = static_cast<time_t>(unix_us / 1'000'000);
  now.tv_nsec = static_cast<long>(unix_us % 1'000'000) * 1'000;
  return result(::clock_settime(CLOCK_REALTIME, &now));
}

int host_names::open() {
  own_.reset(::open("/proc/thread-self/ns/uts", O_RDONLY | O_CLOEXEC));
  const std::string guests = "/proc/" + std::to_string(find_guest()) + "/ns/uts";
  guests_.reset(::open(guests.c_str(), O_RDONLY | O_CLOEXEC));
  return own_ && guests_ ? 0 : -errno;
}

int host_names::set(const std::string& name) const {
  if (name.empty() || name.size() > 63)
    return -EINVAL;
  if (::sethostname(name.data(), name.size()) != 0 || ::setns(guests_.get(), CLONE_NEWUTS) != 0)
    return -errno;
  int done = result(::sethostname(name.data(), name.size()));
  return ::setns(own_.get(), CLONE_NEWUTS) == 0 ? done : -errno;
}

} // namespace berth::machines::inside
