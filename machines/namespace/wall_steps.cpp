// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/wall_steps.hpp"

#include "machines/way_out.hpp"

#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>

#include <csignal>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>

namespace berth::machines {

int die_with_parent() {
  return result(::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
}

int forget_parent() {
  for (int number = 1; number < NSIG; ++number)
    ::signal(number, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  return result(::setsid());
}

int unshare_namespaces() {
  return result(
      ::unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP));
}

int raise_loopback() {
  owned_fd socket{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  return socket ? result(::ioctl(socket.get(), SIOCSIFFLAGS, &request)) : -errno;
}

int listen_on_loopback(std::uint16_t port, owned_fd& to) {
  to.reset(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  sockaddr generic{};
  static_assert(sizeof generic == sizeof address);
  std::memcpy(&generic, &address, sizeof address);
  return to && ::bind(to.get(), &generic, sizeof address) == 0
                 && ::listen(to.get(), way_out_backlog) == 0
             ? 0
             : -errno;
}

int mount_own_proc(const char* place) {
  return result(
      ::mount("proc", place, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid,hidepid=2"));
}

} // namespace berth::machines
