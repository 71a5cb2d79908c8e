// SPDX-License-Identifier: Apache-2.0
#include "tests/machines/image/vm.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <poll.h>
#include <stdexcept>
#include <vector>

namespace berth::test {

namespace {

constexpr int patience_ms = 120'000;

std::vector<std::string> command_line(const machines::image& from, const std::string& directory,
                                      const std::string& words) {
  const machines::image_manifest& manifest = from.manifest;
  const std::string acpi = manifest.devices_by_command_line ? "off" : "on";
  return {"qemu-system-x86_64",
          "-accel",
          "tcg,tb-size=128",
          "-M",
          "microvm,acpi=" + acpi + ",pit=on,pic=on,rtc=on,isa-serial=on",
          "-m",
          std::to_string(manifest.memory_mib),
          "-nodefaults",
          "-no-user-config",
          "-display",
          "none",
          "-no-reboot",
          "-serial",
          "file:" + directory + "/console",
          "-kernel",
          from.kernel(),
          "-initrd",
          from.initrd(),
          "-append",
          machines::kernel_words(manifest, true) + " panic=-1 quiet console=ttyS0 reboot=t "
              + words,
          "-drive",
          "id=root,file=" + from.root() + ",format=raw,if=none,readonly=on",
          "-device",
          "virtio-blk-device,drive=root",
          "-device",
          "virtio-rng-device",
          "-device",
          "virtio-serial-device",
          "-chardev",
          "socket,id=channel,path=" + directory + "/channel",
          "-device",
          "virtserialport,chardev=channel,name=berth"};
}

[[noreturn]] void become(const std::vector<std::string>& words) {
  std::vector<char*> arguments;
  for (const auto& word : words)
    arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  ::_exit(127);
}

} // namespace

bare_vm::bare_vm(const machines::image& from, const std::string& words) {
  std::string pattern = std::filesystem::temp_directory_path() / "berth-vm.XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr)
    throw std::runtime_error{"cannot make " + pattern};
  directory_ = pattern;
  owned_fd listener{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = directory_ + "/channel";
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0
      || ::listen(listener.get(), 1) != 0)
    throw std::runtime_error{"cannot listen on " + path};
  const auto command = command_line(from, directory_, words);
  pid_ = ::fork();
  if (pid_ == 0)
    become(command);
  pollfd waiting{listener.get(), POLLIN, 0};
  if (::poll(&waiting, 1, patience_ms) != 1)
    throw std::runtime_error{"QEMU does not start"};
  channel_.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
}

bare_vm::~bare_vm() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

void bare_vm::send_bytes(const bytes& data) {
  std::size_t sent = 0;
  while (sent < data.size()) {
    ssize_t count = ::send(channel_.get(), data.data() + sent, data.size() - sent, MSG_NOSIGNAL);
    if (count <= 0)
      throw std::runtime_error{"the machine is gone: " + console()};
    sent += static_cast<std::size_t>(count);
  }
}

guest::from_guest bare_vm::next() {
  std::array<char, 65536> block{};
  while (true) {
    if (auto body = cutter_.next()) {
      auto frame = guest::decode_frame<guest::from_guest>(*body);
      if (!frame)
        throw std::runtime_error{"no frame: " + frame.why().text()};
      return std::move(*frame);
    }
    pollfd waiting{channel_.get(), POLLIN, 0};
    if (::poll(&waiting, 1, patience_ms) != 1)
      throw std::runtime_error{"the machine says nothing: " + console()};
    ssize_t count = ::read(channel_.get(), block.data(), block.size());
    if (count <= 0)
      throw std::runtime_error{"the machine is gone: " + console()};
    cutter_.push({block.data(), static_cast<std::size_t>(count)});
  }
}

vm_job bare_vm::run(const std::string& language, const std::string& code) {
  guest::start_job start;
  start.job = ++jobs_;
  start.language = language;
  start.code = code;
  start.cwd = "/work";
  start.output_bytes = 1 << 20;
  send(start);
  vm_job done;
  while (true) {
    guest::from_guest frame = next();
    if (auto* said = std::get_if<guest::output>(&frame))
      (said->stream == guest::stdout_stream ? done.out : done.err)
          .append(said->data.begin(), said->data.end());
    else if (auto* started = std::get_if<guest::job_started>(&frame))
      done.path = started->path;
    else if (auto* used = std::get_if<guest::used>(&frame))
      done.used = *used;
    else if (auto* refused = std::get_if<guest::job_refused>(&frame))
      throw std::runtime_error{"refused: " + refused->reason};
    else if (auto* ended = std::get_if<guest::job_ended>(&frame)) {
      done.end = *ended;
      return done;
    }
  }
}

bool bare_vm::ends() {
  for (int left = patience_ms / 20; left > 0; --left) {
    if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      return true;
    }
    ::usleep(20'000);
  }
  return false;
}

std::string bare_vm::console() const {
  std::ifstream in{directory_ + "/console"};
  return {std::istreambuf_iterator<char>{in}, {}};
}

std::string vm_data_dir() {
  return BERTH_BUILD_DIR "/vm";
}

machines::image test_image() {
  auto found = machines::find_image(vm_data_dir(), "minimal");
  if (!found)
    throw std::runtime_error{to_refusal(found.error()).detail};
  return *found;
}

} // namespace berth::test
