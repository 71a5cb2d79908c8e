// SPDX-License-Identifier: Apache-2.0
#include "machines/firecracker/fault_handler.hpp"

#include "machines/namespace/confine/confine.h"

#include <linux/userfaultfd.h>
#include <nlohmann/json.hpp>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace berth::machines {

namespace {

using json = nlohmann::json;

constexpr std::uint64_t page_bytes = 4096;
/// Brought at once, for what is near is touched next.
constexpr std::uint64_t piece_bytes = 64 * 1024;
constexpr std::size_t regions_max = 16;
constexpr std::size_t text_bytes_max = 16 * 1024;
/// How long Firecracker may take to say what memory it has.
constexpr int greeting_ms = 60'000;
/// How soon a page is tried again that could not be brought.
constexpr int retry_ms = 1;
constexpr std::uint32_t inside_id = 1000;
constexpr int descriptors_max = 16;

std::string failed(const char* what) {
  return std::string{what} + ": " + std::strerror(errno);
}

/// What runs in the process.
class server {
public:
  server(owned_fd listener, owned_fd memory, std::uint64_t memory_bytes)
    : listener_(std::move(listener))
    , memory_(std::move(memory))
    , memory_bytes_(memory_bytes)
    , removed_((memory_bytes + page_bytes - 1) / page_bytes) {}

  void run() {
    if (!greet())
      return;
    pollfd ready{faults_.get(), POLLIN, 0};
    while (::poll(&ready, 1, waiting_.empty() ? -1 : retry_ms) >= 0 || errno == EINTR) {
      std::array<uffd_msg, 16> told{};
      ssize_t count = ::read(faults_.get(), told.data(), sizeof told);
      if (count <= 0 && errno != EAGAIN && errno != EINTR)
        return;
      auto waiting = std::exchange(waiting_, {});
      for (std::size_t i = 0; count > 0 && i < static_cast<std::size_t>(count) / sizeof told[0];
           ++i)
        if (told[i].event == UFFD_EVENT_PAGEFAULT)
          waiting.push_back(told[i].arg.pagefault.address / page_bytes * page_bytes);
        else if (told[i].event == UFFD_EVENT_REMOVE)
          remove(told[i].arg.remove.start, told[i].arg.remove.end);
      for (auto address : waiting)
        if (!bring(address))
          return;
    }
  }

private:
  /// One Firecracker says once what it has, and gives the descriptor of its faults.
  bool greet() {
    pollfd ready{listener_.get(), POLLIN, 0};
    if (::poll(&ready, 1, greeting_ms) != 1)
      return false;
    owned_fd peer{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)};
    ready.fd = peer.get();
    if (!peer || ::poll(&ready, 1, greeting_ms) != 1)
      return false;
    std::vector<char> text(text_bytes_max);
    iovec piece{text.data(), text.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t count = ::recvmsg(peer.get(), &message, MSG_CMSG_CLOEXEC);
    const cmsghdr* came = count > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
    if (came == nullptr || came->cmsg_type != SCM_RIGHTS)
      return false;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(came), sizeof fd);
    faults_.reset(fd);
    (void)::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
    auto read = read_regions({text.data(), static_cast<std::size_t>(count)}, memory_bytes_);
    if (read)
      regions_ = std::move(*read);
    return read.has_value();
  }

  const memory_region* region_of(std::uint64_t address) const {
    auto found = std::ranges::find_if(regions_, [&](const auto& one) {
      return address >= one.address && address - one.address < one.bytes;
    });
    return found == regions_.end() ? nullptr : &*found;
  }

  /// What the guest gave back is nothing from then on.
  void remove(std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t at = from; at < to; at += page_bytes) {
      const memory_region* in = region_of(at);
      if (in == nullptr)
        return;
      removed_[(at - in->address + in->offset) / page_bytes] = true;
    }
  }

  bool bring(std::uint64_t address) {
    const memory_region* in = region_of(address);
    if (in == nullptr)
      return false;
    // The piece around it, where all of that is there to be brought.
    std::uint64_t begin = std::max(address / piece_bytes * piece_bytes, in->address);
    std::uint64_t end = std::min(begin + piece_bytes, in->address + in->bytes);
    const std::uint64_t place = begin - in->address + in->offset;
    const auto first = removed_.begin() + static_cast<std::ptrdiff_t>(place / page_bytes);
    const auto last = first + static_cast<std::ptrdiff_t>((end - begin) / page_bytes);
    if (std::find(first, last, true) == last && copy(begin, end - begin, place))
      return true;
    const std::uint64_t of_page = address - in->address + in->offset;
    const bool done =
        removed_[of_page / page_bytes] ? zero(address) : copy(address, page_bytes, of_page);
    if (done)
      return true;
    // It came meanwhile; or a removal waits to be heard first.
    if (errno == EEXIST)
      return wake(address);
    waiting_.push_back(address);
    return errno == EAGAIN;
  }

  /// Reading leaves the file's holes what they are; a mapping would fill them.
  bool copy(std::uint64_t to, std::uint64_t bytes, std::uint64_t from) {
    ssize_t count = ::pread(memory_.get(), room_.data(), bytes, static_cast<off_t>(from));
    if (count != static_cast<ssize_t>(bytes))
      return false;
    uffdio_copy wanted{};
    wanted.dst = to;
    wanted.src = reinterpret_cast<std::uint64_t>(room_.data());
    wanted.len = bytes;
    return ::ioctl(faults_.get(), UFFDIO_COPY, &wanted) == 0;
  }

  bool zero(std::uint64_t at) {
    uffdio_zeropage wanted{};
    wanted.range = {.start = at, .len = page_bytes};
    return ::ioctl(faults_.get(), UFFDIO_ZEROPAGE, &wanted) == 0;
  }

  bool wake(std::uint64_t at) {
    uffdio_range range{.start = at, .len = page_bytes};
    return ::ioctl(faults_.get(), UFFDIO_WAKE, &range) == 0;
  }

  owned_fd listener_;
  owned_fd memory_;
  owned_fd faults_;
  const std::uint64_t memory_bytes_;
  std::vector<memory_region> regions_;
  std::vector<bool> removed_;          // pages of the file
  std::vector<std::uint64_t> waiting_; // faults to be tried again
  std::vector<char> room_ = std::vector<char>(piece_bytes);
};

[[noreturn]] void become_handler(owned_fd listener, owned_fd memory, std::uint64_t bytes,
                                 uid_t owner, pid_t parent) {
  ::prctl(PR_SET_NAME, "berth-faults");
  listener = owned_fd{::fcntl(listener.get(), F_DUPFD_CLOEXEC, descriptors_max)};
  memory = owned_fd{::fcntl(memory.get(), F_DUPFD_CLOEXEC, descriptors_max)};
  const int low = std::min(listener.get(), memory.get());
  const int high = std::max(listener.get(), memory.get());
  ::close_range(3, static_cast<unsigned>(low) - 1, 0);
  if (high > low + 1)
    ::close_range(static_cast<unsigned>(low) + 1, static_cast<unsigned>(high) - 1, 0);
  ::close_range(static_cast<unsigned>(high) + 1, ~0U, 0);
  berth_confinement wanted{};
  wanted.flags = BERTH_CONFINE_NEW_USER_NS;
  wanted.uid = wanted.gid = owner;
  wanted.inside_uid = wanted.inside_gid = inside_id;
  wanted.oom_score_adj = 300;
  wanted.nofile = wanted.nproc = wanted.address_space = wanted.file_size = BERTH_LIMIT_KEEP;
  const char* step = "";
  if (berth_confine(&wanted, &step) != 0)
    ::_exit(1);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (::getppid() != parent)
    ::_exit(1);
  server{std::move(listener), std::move(memory), bytes}.run();
  ::_exit(0);
}

/// Paths of sockets are short; that of the directory need not be.
owned_fd listen_at(const std::string& path, uid_t owner) {
  const auto slash = path.rfind('/');
  owned_fd directory{
      ::open(path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
  owned_fd made{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_un where{};
  where.sun_family = AF_UNIX;
  std::snprintf(where.sun_path, sizeof where.sun_path, "/proc/self/fd/%d/%s", directory.get(),
                path.substr(slash + 1).c_str());
  const bool works =
      directory && made
      && ::bind(made.get(), reinterpret_cast<const sockaddr*>(&where), sizeof where) == 0
      && ::chown(path.c_str(), owner, owner) == 0 && ::listen(made.get(), 1) == 0;
  if (!works)
    made.reset();
  return made;
}

} // namespace

std::optional<std::vector<memory_region>> read_regions(std::string_view text,
                                                       std::uint64_t memory_bytes) {
  const json all = json::parse(text, nullptr, false);
  if (!all.is_array() || all.empty() || all.size() > regions_max)
    return std::nullopt;
  auto number = [](const json& from, const char* name) -> std::optional<std::uint64_t> {
    auto found = from.find(name);
    if (found == from.end() || !found->is_number_unsigned())
      return std::nullopt;
    return found->get<std::uint64_t>();
  };
  std::vector<memory_region> regions;
  for (const auto& one : all) {
    if (!one.is_object())
      return std::nullopt;
    auto address = number(one, "base_host_virt_addr");
    auto bytes = number(one, "size");
    auto offset = number(one, "offset");
    if (!address || !bytes || !offset || *offset > memory_bytes || *bytes > memory_bytes - *offset
        || *address > UINT64_MAX - *bytes || (*address | *bytes | *offset) % page_bytes != 0
        || number(one, "page_size").value_or(page_bytes) != page_bytes)
      return std::nullopt;
    regions.push_back({.address = *address, .bytes = *bytes, .offset = *offset});
  }
  return regions;
}

fault_handler::~fault_handler() {
  if (!pidfd_)
    return;
  ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
  siginfo_t info{};
  ::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED);
}

fault_handler fault_handler::start(const std::string& socket_path, const std::string& memory_path,
                                   uid_t owner, std::string& why) {
  fault_handler made;
  owned_fd memory{::open(memory_path.c_str(), O_RDONLY | O_CLOEXEC)};
  struct stat info {};
  if (!memory || ::fstat(memory.get(), &info) != 0) {
    why = failed("memory for page faults");
    return made;
  }
  owned_fd listener = listen_at(socket_path, owner);
  if (!listener) {
    why = failed("socket for page faults");
    return made;
  }
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0)
    become_handler(std::move(listener), std::move(memory), static_cast<std::uint64_t>(info.st_size),
                   owner, parent);
  if (pid > 0)
    made.pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!made)
    why = failed("process for page faults");
  return made;
}

} // namespace berth::machines
