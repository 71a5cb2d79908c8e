// SPDX-License-Identifier: Apache-2.0
#include "machines/qemu/command_line.hpp"

#include "machines/way_out.hpp"

namespace berth::machines {

namespace {

std::string at(int descriptor) {
  return "/dev/fd/" + std::to_string(descriptor);
}

std::string machine_type(const vm_shape& shape) {
  std::string type = "microvm,pit=on,pic=on,rtc=on,isa-serial=on,";
  type += shape.acpi ? "acpi=on" : "acpi=off";
  // A saved state ends where its devices end, which is how it is read back.
  return type + ",memory-backend=ram,suppress-vmdesc=on";
}

/// What a machine that is saved and one that takes its state must have alike.
std::vector<std::string> common(const vm_shape& shape, bool shared) {
  const std::string size = std::to_string(shape.memory_mib) + "M";
  const bool kvm = shape.runs_by == accelerator::kvm;
  std::vector<std::string> all{
      "qemu-system-x86_64",
      "-accel",
      kvm ? "kvm" : "tcg,thread=single,tb-size=" + std::to_string(shape.translation_mib),
      "-cpu",
      kvm ? "host" : "max",
      "-machine",
      machine_type(shape),
      "-smp",
      std::to_string(shape.vcpus),
      "-m",
      size,
      "-object",
      "memory-backend-file,id=ram,size=" + size + ",mem-path=" + at(vm_memory_fd)
          + ",share=" + (shared ? "on" : "off"),
      "-global",
      "migration.send-configuration=off",
      "-nodefaults",
      "-no-user-config",
      "-display",
      "none",
      "-no-reboot",
      "-no-shutdown",
      "-sandbox",
      "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
      "-chardev",
      "socket,id=monitor,fd=" + std::to_string(vm_monitor_fd),
      "-mon",
      "chardev=monitor,mode=control",
      // Bounded, whatever a guest writes; read when a start fails.
      "-chardev",
      "ringbuf,id=console,size=65536",
      "-serial",
      "chardev:console",
      "-add-fd",
      "fd=" + std::to_string(vm_root_fd) + ",set=1",
      "-blockdev",
      "driver=file,node-name=root,filename=/dev/fdset/1,read-only=on,locking=off",
      "-device",
      "virtio-blk-device,drive=root",
      // Without it the kernel waits seconds for entropy.
      "-device",
      "virtio-rng-device",
      "-device",
      "virtio-serial-device",
      "-chardev",
      "socket,id=channel,fd=" + std::to_string(vm_channel_fd),
      "-device",
      std::string{"virtserialport,chardev=channel,name="} + vm_port,
  };
  // The host is the loopback of QEMU's own network namespace, in which one socket listens.
  if (shape.network)
    all.insert(all.end(),
               {"-netdev", "user,id=net,ipv6=off", "-device", "virtio-net-device,netdev=net"});
  return all;
}

} // namespace

std::string kernel_words(const vm_shape& shape, const vm_boot& boot) {
  std::string words = boot.kernel_words;
  words += " panic=-1 quiet console=ttyS0 reboot=t mitigations=off";
  // Saves what calibrating clocks by an emulated timer would take.
  if (shape.runs_by == accelerator::tcg)
    words += " tsc=reliable no_timer_check";
  words += " berth.disk_mib=" + std::to_string(boot.disk_mib);
  if (shape.network)
    words += " berth.way_out=" + std::to_string(way_out_port);
  if (!boot.hostname.empty())
    words += " berth.hostname=" + boot.hostname;
  if (words.front() == ' ')
    words.erase(0, 1);
  return words;
}

std::vector<std::string> boot_arguments(const vm_shape& shape, const vm_boot& boot) {
  auto all = common(shape, true);
  for (const auto& one : {std::string{"-kernel"}, at(vm_kernel_fd), std::string{"-initrd"},
                          at(vm_initrd_fd), std::string{"-append"}, kernel_words(shape, boot)})
    all.push_back(one);
  return all;
}

std::vector<std::string> waiting_arguments(const vm_shape& shape) {
  auto all = common(shape, false);
  all.emplace_back("-incoming");
  all.emplace_back("defer");
  return all;
}

std::string template_key(const vm_shape& shape, const vm_boot& boot,
                         const std::vector<std::string>& parts) {
  auto all = boot_arguments(shape, boot);
  all.insert(all.end(), parts.begin(), parts.end());
  return key_of(all);
}

} // namespace berth::machines
