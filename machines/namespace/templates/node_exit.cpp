// SPDX-License-Identifier: Apache-2.0
// The one thing that Node-API lacks: a word after an uncaught exception has been displayed and
// before Node dismantles itself, which waits for threads that a forked process does not have.
#include <cstdint>
#include <node.h>
#include <unistd.h>

namespace {

void leave(void* code) {
  _exit(static_cast<int>(reinterpret_cast<std::intptr_t>(code)));
}

} // namespace

/// Ends the process with `code` when Node runs its exit hooks. Must be called from JavaScript.
extern "C" void berth_leave_later(int code) {
  auto context = v8::Isolate::GetCurrent()->GetCurrentContext();
  node::AtExit(node::GetCurrentEnvironment(context), leave,
               reinterpret_cast<void*>(static_cast<std::intptr_t>(code)));
}
