// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/image/image.hpp"
#include "messages/fd.hpp"
#include "messages/guest.hpp"

#include <sys/types.h>

#include <optional>
#include <string>

namespace berth::test {

/// How a job in a virtual machine ended.
struct vm_job {
  std::string out;
  std::string err;
  guest::job_ended end;
  guest::used used;
  run_path path = run_path::cold;
};

/// A virtual machine in QEMU, without any of the server: what an image is tried with. Waits at most
/// two minutes for anything; a machine that says nothing fails the test with its console's text.
class bare_vm {
public:
  /// `words` are added to the kernel's command line.
  explicit bare_vm(const machines::image& from, const std::string& words = {});
  ~bare_vm();
  bare_vm(const bare_vm&) = delete;
  bare_vm& operator=(const bare_vm&) = delete;

  template <described T>
  void send(const T& message) {
    send_bytes(guest::encode_frame(message));
  }
  void send_bytes(const bytes& data);
  /// The next frame of this kind; others are passed over.
  template <class T>
  T await() {
    while (true) {
      guest::from_guest frame = next();
      if (auto* wanted = std::get_if<T>(&frame))
        return std::move(*wanted);
    }
  }
  guest::from_guest next();
  vm_job run(const std::string& language, const std::string& code);
  /// Whether the machine ends within two minutes.
  bool ends();
  std::string console() const;

private:
  pid_t pid_ = -1;
  std::string directory_;
  owned_fd channel_;
  guest::frame_cutter cutter_;
  std::uint32_t jobs_ = 0;
};

/// The image that all tests boot: minimal, with Debian's kernel, kept in the build directory.
std::string vm_data_dir();
machines::image test_image();

} // namespace berth::test
