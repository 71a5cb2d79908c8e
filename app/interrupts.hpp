// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <sys/signalfd.h>

#include <csignal>
#include <ctime>
#include <initializer_list>
#include <unistd.h>

namespace berth {

/// Signals as a descriptor, for as long as something runs that they may end.
class interrupts {
public:
  explicit interrupts(std::initializer_list<int> which = {SIGINT}) {
    sigemptyset(&heard_);
    for (int signal : which)
      sigaddset(&heard_, signal);
    sigprocmask(SIG_BLOCK, &heard_, nullptr);
    fd_.reset(::signalfd(-1, &heard_, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  interrupts(const interrupts&) = delete;
  interrupts& operator=(const interrupts&) = delete;
  ~interrupts() {
    fd_.reset();
    // One that came late meant what ran.
    timespec now{};
    while (sigtimedwait(&heard_, nullptr, &now) > 0)
      ;
    sigprocmask(SIG_UNBLOCK, &heard_, nullptr);
  }

  int fd() const { return fd_.get(); }
  bool take() const {
    signalfd_siginfo one{};
    return ::read(fd_.get(), &one, sizeof one) == sizeof one;
  }

private:
  sigset_t heard_{};
  owned_fd fd_;
};

} // namespace berth
