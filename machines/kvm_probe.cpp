// SPDX-License-Identifier: Apache-2.0
#include "machines/kvm_probe.hpp"

#include "messages/fd.hpp"

#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace berth::machines {

namespace {

using clock = std::chrono::steady_clock;

constexpr std::uint64_t guest_bytes = 64 * 1024;
constexpr std::uint64_t code_at = 0x1000;
constexpr std::uint64_t tables_at = 0x4000;
/// A processor needs about a millisecond; an interpreter of instructions needs seconds.
constexpr std::chrono::milliseconds run_within{100};
/// How long a guest may take before its process is ended.
constexpr int probe_within_ms = 1'000;
constexpr std::uint16_t serial_port = 0x3f8;

constexpr std::uint8_t program[] = {
    0xf0, 0x48, 0x0f, 0xc7, 0x0c, 0x25, 0x00, 0x20, 0x00, 0x00, // lock cmpxchg16b [0x2000]
    0xb9, 0x40, 0x42, 0x0f, 0x00,                               // mov ecx, 1000000
    0xff, 0xc9,                                                 // dec ecx
    0x75, 0xfc,                                                 // jnz back
    0x66, 0xba, 0xf8, 0x03,                                     // mov dx, 0x3f8
    0xee,                                                       // out dx, al
    0xf4,                                                       // hlt
};

std::string failed(const char* what) {
  return std::string{what} + ": " + std::strerror(errno);
}

void put(char* memory, std::uint64_t at, std::uint64_t value) {
  std::memcpy(memory + at, &value, sizeof value);
}

/// The first 2 MiB mapped as they are, by one large page.
void lay_out(char* memory) {
  constexpr std::uint64_t present_writable = 3;
  constexpr std::uint64_t large = 0x80;
  put(memory, tables_at, (tables_at + 0x1000) | present_writable);
  put(memory, tables_at + 0x1000, (tables_at + 0x2000) | present_writable);
  put(memory, tables_at + 0x2000, present_writable | large);
  std::memcpy(memory + code_at, program, sizeof program);
}

/// 64-bit mode, ring 0, the code's first byte next.
bool enter_long_mode(int vcpu) {
  kvm_sregs special{};
  if (::ioctl(vcpu, KVM_GET_SREGS, &special) != 0)
    return false;
  constexpr std::uint64_t protected_and_paged = 0x80000001;
  constexpr std::uint64_t physical_extension = 0x20;
  constexpr std::uint64_t long_mode = 0x500;
  special.cr0 = protected_and_paged;
  special.cr3 = tables_at;
  special.cr4 = physical_extension;
  special.efer = long_mode;
  kvm_segment code{};
  code.limit = 0xffffffff;
  code.selector = 8;
  code.type = 11;
  code.present = 1;
  code.s = 1;
  code.l = 1;
  code.g = 1;
  special.cs = code;
  code.selector = 16;
  code.type = 3;
  code.l = 0;
  code.db = 1;
  special.ds = special.es = special.ss = special.fs = special.gs = code;
  kvm_regs general{};
  general.rip = code_at;
  general.rflags = 2;
  return ::ioctl(vcpu, KVM_SET_SREGS, &special) == 0 && ::ioctl(vcpu, KVM_SET_REGS, &general) == 0;
}

/// Runs until the next exit. Empty when it is the wanted one.
std::string run_to(int vcpu, const kvm_run& shared, std::uint32_t wanted, const char* what) {
  if (::ioctl(vcpu, KVM_RUN, 0) != 0)
    return failed("KVM_RUN");
  if (shared.exit_reason == wanted)
    return {};
  if (shared.exit_reason == KVM_EXIT_INTERNAL_ERROR)
    return "a guest dies with an internal error of KVM, suberror "
           + std::to_string(shared.internal.suberror)
           + " (this KVM interprets instructions, and not all of them)";
  return std::string{"a guest ended by exit "} + std::to_string(shared.exit_reason) + " before its "
         + what;
}

kvm_verdict run_guest() {
  owned_fd kvm{::open("/dev/kvm", O_RDWR | O_CLOEXEC)};
  if (!kvm)
    return {false, failed("/dev/kvm")};
  int version = ::ioctl(kvm.get(), KVM_GET_API_VERSION, 0);
  if (version != KVM_API_VERSION)
    return {false, "KVM's interface has version " + std::to_string(version)};
  owned_fd vm{::ioctl(kvm.get(), KVM_CREATE_VM, 0)};
  if (!vm)
    return {false, failed("KVM_CREATE_VM")};
  void* memory =
      ::mmap(nullptr, guest_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return {false, failed("memory of a guest")};
  lay_out(static_cast<char*>(memory));
  kvm_userspace_memory_region region{};
  region.memory_size = guest_bytes;
  region.userspace_addr = reinterpret_cast<std::uintptr_t>(memory);
  if (::ioctl(vm.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0)
    return {false, failed("KVM_SET_USER_MEMORY_REGION")};
  owned_fd vcpu{::ioctl(vm.get(), KVM_CREATE_VCPU, 0)};
  int size = ::ioctl(kvm.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (!vcpu || size < static_cast<int>(sizeof(kvm_run)))
    return {false, failed("KVM_CREATE_VCPU")};
  void* shared = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED,
                        vcpu.get(), 0);
  if (shared == MAP_FAILED || !enter_long_mode(vcpu.get()))
    return {false, failed("registers of a guest")};
  const auto& run = *static_cast<const kvm_run*>(shared);
  auto began = clock::now();
  std::string why = run_to(vcpu.get(), run, KVM_EXIT_IO, "output");
  if (why.empty() && (run.io.port != serial_port || run.io.direction != KVM_EXIT_IO_OUT))
    why = "a guest's output went elsewhere";
  if (why.empty())
    why = run_to(vcpu.get(), run, KVM_EXIT_HLT, "halt");
  if (!why.empty())
    return {false, why};
  auto took = std::chrono::duration_cast<std::chrono::microseconds>(clock::now() - began);
  std::string time = std::to_string(took.count() / 1000) + "."
                     + std::to_string(took.count() / 100 % 10)
                     + " ms for a guest of a million turns";
  if (took > run_within)
    return {false, time + ": this KVM interprets instructions, the processor does not run them"};
  return {true, "a guest ran on the processor: " + time};
}

[[noreturn]] void tell_verdict(int to) {
  kvm_verdict found = run_guest();
  std::string text = (found.usable ? "+" : "-") + found.detail;
  (void)!::write(to, text.data(), text.size());
  ::_exit(0);
}

} // namespace

kvm_verdict probe_kvm() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    return {false, failed("pipe")};
  owned_fd from{ends[0]};
  owned_fd to{ends[1]};
  std::fflush(nullptr);
  // A guest that does not come back can only be ended with its process.
  pid_t child = ::fork();
  if (child < 0)
    return {false, failed("fork")};
  if (child == 0)
    tell_verdict(to.get());
  to.reset();
  pollfd heard{from.get(), POLLIN, 0};
  int polled = 0;
  do
    polled = ::poll(&heard, 1, probe_within_ms);
  while (polled < 0 && errno == EINTR);
  std::array<char, 512> text{};
  ssize_t count = polled == 1 ? ::read(from.get(), text.data(), text.size()) : 0;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  if (polled != 1)
    return {false, "a guest did nothing in a second: this KVM interprets instructions"};
  if (count <= 1)
    return {false, "the process that tried a guest died"};
  return {text[0] == '+', std::string(text.data() + 1, static_cast<std::size_t>(count) - 1)};
}

} // namespace berth::machines
