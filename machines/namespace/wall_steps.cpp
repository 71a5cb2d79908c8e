// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/wall_steps.hpp"

#include <sys/mount.h>
#include <sys/prctl.h>

#include <csignal>
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

int mount_own_proc(const char* place) {
  return result(
      ::mount("proc", place, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid,hidepid=2"));
}

} // namespace berth::machines
