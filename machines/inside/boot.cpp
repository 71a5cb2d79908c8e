// SPDX-License-Identifier: Apache-2.0
#include "machines/inside/boot.hpp"

#include <linux/reboot.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

namespace berth::machines::inside {

namespace {

constexpr const char* new_root = "/root";
constexpr const char* root_device = "/dev/vda";
constexpr const char* initial_lib = "/lib/berth";
constexpr const char* initial_modules = "/modules";
/// Devices are found by the kernel beside us; under a loaded host it takes a while.
constexpr int device_tries = 3'000;
constexpr useconds_t device_pause_us = 2'000;

std::string failed(const std::string& what) {
  return what + ": " + std::strerror(errno);
}

std::string read_text(const char* path) {
  std::ifstream in{path};
  return {std::istreambuf_iterator<char>{in}, {}};
}

bool read_number(std::string_view text, std::uint64_t& to) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
  return error == std::errc{} && end == text.data() + text.size();
}

/// A kernel with modules has its drivers here, in the order in which they need each other.
std::string load_modules() {
  std::ifstream order{std::string{initial_modules} + "/order"};
  for (std::string name; std::getline(order, name);) {
    owned_fd file{
        ::open((std::string{initial_modules} + "/" + name).c_str(), O_RDONLY | O_CLOEXEC)};
    if (!file || (::syscall(SYS_finit_module, file.get(), "", 0) != 0 && errno != EEXIST))
      return failed("module " + name);
  }
  return {};
}

std::string mount_image() {
  for (int left = device_tries;; --left) {
    if (::mount(root_device, new_root, "erofs", MS_RDONLY | MS_NOSUID | MS_NODEV, "") == 0)
      return {};
    if (left == 0 || (errno != ENOENT && errno != ENXIO && errno != ENODEV))
      return failed(std::string{"image on "} + root_device);
    ::usleep(device_pause_us);
  }
}

struct kernel_mount {
  const char* type;
  const char* place;
  unsigned long flags;
  const char* options;
};

/// Below the image's root, which has directories for them.
constexpr kernel_mount kernel_mounts[] = {
    {"devtmpfs", "/root/dev", MS_NOSUID | MS_NOEXEC, "mode=755"},
    {"proc", "/root/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""},
    {"sysfs", "/root/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, ""},
    {"cgroup2", "/root/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""},
    {"tmpfs", "/root/run", MS_NOSUID | MS_NODEV, "mode=755,size=16m"},
};

std::string mount_kernels_own() {
  for (const auto& one : kernel_mounts)
    if (::mount(one.type, one.place, one.type, one.flags, one.options) != 0)
      return failed(one.place);
  if (::mount(initial_lib, (std::string{new_root} + lib_dir).c_str(), nullptr, MS_BIND, nullptr)
      != 0)
    return failed(initial_lib);
  return {};
}

/// The initial file system stays mounted below the image's root, out of everybody's sight. It can
/// not be left by pivot_root, and the spawner could not pivot away from it.
int initial_root = -1;

std::string switch_root() {
  initial_root = ::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (::chdir(new_root) != 0 || ::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0
      || ::chroot(".") != 0 || ::chdir("/") != 0)
    return failed("switch to the image's root");
  return {};
}

/// The console is where what goes wrong is said.
void open_console() {
  int console = ::open("/dev/console", O_RDWR | O_NOCTTY);
  if (console < 0)
    console = ::open("/dev/null", O_RDWR);
  for (int stream : {0, 1, 2})
    if (console >= 0 && console != stream)
      ::dup2(console, stream);
  if (console > 2)
    ::close(console);
}

/// What the virtual machine has is shared out between the machine and what keeps it.
void share_out(boot_options& options) {
  struct sysinfo info {};
  ::sysinfo(&info);
  const std::uint64_t mib = (info.totalram * info.mem_unit) >> 20;
  if (options.disk_mib == 0)
    options.disk_mib = std::max<std::uint64_t>(mib / 4, 16);
  if (options.memory_mib == 0)
    options.memory_mib = mib;
}

} // namespace

boot_options parse_boot_options(std::string_view command_line) {
  boot_options options;
  std::istringstream in{std::string{command_line}};
  for (std::string word; in >> word;) {
    auto equals = word.find('=');
    if (!word.starts_with("berth.") || equals == std::string::npos)
      continue;
    const std::string name = word.substr(6, equals - 6);
    const std::string value = word.substr(equals + 1);
    std::uint64_t number = 0;
    bool is_number = read_number(value, number);
    if (name == "hostname" && !value.empty())
      options.hostname = value;
    else if (name == "disk_mib" && is_number)
      options.disk_mib = number;
    else if (name == "memory_mib" && is_number)
      options.memory_mib = number;
    else if (name == "processes" && is_number)
      options.processes = number;
    else if (name == "vsock_port" && is_number)
      options.vsock_port = static_cast<std::uint32_t>(number);
    else if (name == "way_out" && is_number && number <= UINT16_MAX)
      options.way_out = static_cast<std::uint16_t>(number);
  }
  return options;
}

std::string boot(boot_options& options) {
  ::umask(022);
  (void)::mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=755");
  open_console();
  if (::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "") != 0)
    return failed("proc");
  options = parse_boot_options(read_text("/proc/cmdline"));
  std::string why = load_modules();
  if (why.empty())
    why = mount_image();
  if (why.empty())
    why = mount_kernels_own();
  if (why.empty())
    why = switch_root();
  share_out(options);
  return why;
}

void drop_initial_files() {
  ::umount2(lib_dir, MNT_DETACH);
  std::vector<std::string> files;
  for (const char* path : {"lib/berth", "modules"}) {
    owned_fd directory{::openat(initial_root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!directory)
      continue;
    alignas(8) char entries[8192];
    for (long size = 0;
         (size = ::syscall(SYS_getdents64, directory.get(), entries, sizeof entries)) > 0;)
      for (long at = 0; at < size;) {
        unsigned short length = 0;
        std::memcpy(&length, entries + at + 16, sizeof length);
        files.push_back(std::string{path} + "/" + (entries + at + 19));
        at += length;
      }
  }
  for (const auto& path : files)
    ::unlinkat(initial_root, path.c_str(), 0);
}

void end_machine(const std::string& why) {
  std::fprintf(stderr, "berth: %s\n", why.c_str());
  ::sync();
  ::reboot(LINUX_REBOOT_CMD_RESTART);
  while (true)
    ::pause();
}

} // namespace berth::machines::inside
