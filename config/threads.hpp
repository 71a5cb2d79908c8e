// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <csignal>
#include <pthread.h>
#include <thread>
#include <utility>

namespace berth {

/// Starts a thread that no signal comes to: they belong to the main thread.
template <class Run>
std::thread start_without_signals(Run run) {
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread started{std::move(run)};
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return started;
}

} // namespace berth
