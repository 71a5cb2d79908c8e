// SPDX-License-Identifier: Apache-2.0
// V8 gives work to threads that a forked interpreter does not have, even when told not to use any:
// every full collection of garbage does, and Node, before it ends, would wait for it for ever.
// Here V8 is told that there are none, and does all work in its one thread.
#include <cmath>
#include <libplatform/libplatform.h>
#include <node.h>
#include <v8-platform.h>

namespace v8::internal {

/// Exported by Node, declared in none of its headers. Missing elsewhere: then nothing changes.
class V8 {
public:
  __attribute__((weak)) static void SetPlatformForTesting(v8::Platform* platform);
};

} // namespace v8::internal

namespace {

/// Node's platform, without its threads. Lives as long as the process.
class lone_platform : public v8::Platform {
public:
  explicit lone_platform(v8::Platform* node)
    : node_(node) {}

  v8::PageAllocator* GetPageAllocator() override { return node_->GetPageAllocator(); }
  int NumberOfWorkerThreads() override { return 0; }
  std::shared_ptr<v8::TaskRunner> GetForegroundTaskRunner(v8::Isolate* isolate) override {
    return node_->GetForegroundTaskRunner(isolate);
  }
  void CallOnWorkerThread(std::unique_ptr<v8::Task> task) override { task->Run(); }
  void CallDelayedOnWorkerThread(std::unique_ptr<v8::Task>, double) override {
    // What may be late may be never: V8 delays only what would be nice to have done.
  }
  bool IdleTasksEnabled(v8::Isolate* isolate) override { return node_->IdleTasksEnabled(isolate); }
  double MonotonicallyIncreasingTime() override { return node_->MonotonicallyIncreasingTime(); }
  double CurrentClockTimeMillis() override { return node_->CurrentClockTimeMillis(); }
  v8::TracingController* GetTracingController() override { return node_->GetTracingController(); }
  StackTracePrinter GetStackTracePrinter() override { return node_->GetStackTracePrinter(); }
  // Which of these two a platform must have depends on the release of V8.
  std::unique_ptr<v8::JobHandle> CreateJob(v8::TaskPriority priority,
                                           std::unique_ptr<v8::JobTask> job) {
    return v8::platform::NewDefaultJobHandle(this, priority, std::move(job), 0);
  }
  std::unique_ptr<v8::JobHandle> PostJob(v8::TaskPriority priority,
                                         std::unique_ptr<v8::JobTask> job) {
    return CreateJob(priority, std::move(job));
  }

private:
  v8::Platform* node_;
};

} // namespace

/// From here on V8 uses no thread but its caller's. Must be called from JavaScript.
extern "C" void berth_work_alone(void) {
  if (v8::internal::V8::SetPlatformForTesting == nullptr)
    return;
  auto context = v8::Isolate::GetCurrent()->GetCurrentContext();
  auto* node = node::GetMultiIsolatePlatform(node::GetCurrentEnvironment(context));
  v8::internal::V8::SetPlatformForTesting(new lone_platform{node});
}
