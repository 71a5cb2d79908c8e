// SPDX-License-Identifier: Apache-2.0
#include "machines/qemu/qemu_machine.hpp"

#include "machines/qemu/command_line.hpp"
#include "machines/qemu/qemu_process.hpp"

#include <sys/sendfile.h>

#include <fcntl.h>
#include <unistd.h>

namespace berth::machines {

namespace {

/// What QEMU needs beyond the guest's memory and translated code.
constexpr std::uint64_t qemu_overhead_mib = 64;
/// QEMU's threads.
constexpr std::uint64_t qemu_processes = 64;
/// QEMUs kept waiting for each template's next machine.
constexpr std::size_t spares_max = 2;

std::shared_ptr<const owned_fd> open_shared(const std::string& path) {
  return std::make_shared<owned_fd>(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

/// A file as one in memory: QEMU opens these by their descriptors, and landlock lets it open
/// nothing of the host's that way.
std::shared_ptr<const owned_fd> copy_to_memory(const std::string& path) {
  owned_fd from{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  owned_fd to = make_memory_file("berth-vm-file", 0);
  ssize_t count = from && to ? 1 : 0;
  while (count > 0)
    count = ::sendfile(to.get(), from.get(), nullptr, std::size_t{64} << 20);
  return std::make_shared<owned_fd>(std::move(to));
}

qemu_settings with_network(qemu_settings settings, bool network) {
  settings.network = network;
  return settings;
}

class qemu_engine final : public vm_engine {
public:
  qemu_engine(const qemu_settings& settings, const image& from, spawner_handle launcher,
              reactor& loop, std::shared_ptr<way_out> out)
    : settings_(with_network(settings, out != nullptr))
    , image_(from)
    , instance_(launcher.instance)
    , walls_(launcher.isolation)
    , link_(std::make_shared<launcher_link>(std::move(launcher), loop))
    , root_(open_shared(from.root()))
    , out_(std::move(out)) {}

  std::string_view kind() const override { return "qemu"; }
  const vm_settings& settings() const override { return settings_; }
  const std::string& instance() const override { return instance_; }
  std::vector<std::string> facts() const override;
  void open() override { link_->open(); }
  vm_plan plan(std::uint64_t memory_mib) const override;
  void read_image(vm_plan& of) const override;
  std::shared_ptr<virtual_machine> start(const vm_plan& of) override;
  std::shared_ptr<virtual_machine> start(const vm_template& of, const std::string& name) override;
  std::size_t spares() const override { return spares_max; }
  void shut_down() override { link_->shut_down(); }
  void close() override { link_->close(); }
  bool closed() const override { return link_->closed(); }
  bool wait_closed(std::chrono::milliseconds limit) override { return link_->wait_closed(limit); }
  void wait_ended(std::chrono::milliseconds limit) override { link_->wait_ended(limit); }

private:
  std::uint64_t process_memory(const vm_shape& shape) const;

  const qemu_settings settings_;
  const image image_;
  const std::string instance_;
  const std::vector<std::string> walls_;
  const std::shared_ptr<launcher_link> link_;
  const std::shared_ptr<const owned_fd> root_;
  const std::shared_ptr<way_out> out_;
};

std::vector<std::string> qemu_engine::facts() const {
  std::vector<std::string> facts{
      std::string{"accelerator: "} + name_of(settings_.runs_by)
          + (settings_.runs_by == accelerator::tcg ? " (software emulation)" : ""),
      "KVM: " + settings_.probe,
      "image: " + image_.manifest.name + "-" + image_.manifest.version + ", kernel "
          + image_.manifest.kernel_release + " (" + image_.manifest.kernel_origin + ")",
      "machine: " + std::to_string(settings_.vcpus)
          + " vCPU, virtio-mmio devices (disk read-only, entropy, serial port"
          + (out_ ? ", network by the way out)" : "), no network")};
  facts.insert(facts.end(), walls_.begin(), walls_.end());
  if (out_)
    for (auto& fact : out_->facts())
      facts.push_back(std::move(fact));
  return facts;
}

std::uint64_t qemu_engine::process_memory(const vm_shape& shape) const {
  std::uint64_t mib = shape.memory_mib + qemu_overhead_mib;
  if (shape.runs_by == accelerator::tcg)
    mib += shape.translation_mib;
  return mib << 20;
}

vm_plan qemu_engine::plan(std::uint64_t memory_mib) const {
  vm_plan made;
  made.shape = {.runs_by = settings_.runs_by,
                .vcpus = settings_.vcpus,
                .memory_mib = memory_mib,
                .translation_mib = settings_.translation_mib,
                .acpi = !image_.manifest.devices_by_command_line,
                .network = settings_.network};
  made.boot = {.kernel_words =
                   machines::kernel_words(image_.manifest, settings_.runs_by == accelerator::tcg),
               .disk_mib = settings_.defaults.disk_bytes >> 20,
               .hostname = "berth"};
  made.key = template_key(made.shape, made.boot,
                          {image_.manifest.version, image_.manifest.guest,
                           marks_of(settings_.binary), processor_model()});
  return made;
}

void qemu_engine::read_image(vm_plan& of) const {
  of.kernel = copy_to_memory(image_.kernel());
  of.initrd = copy_to_memory(image_.initrd());
}

std::shared_ptr<virtual_machine> qemu_engine::start(const vm_plan& of) {
  auto one = std::make_shared<qemu_process>(link_, out_);
  bool started = one->start({.arguments = boot_arguments(of.shape, of.boot),
                             .root = root_,
                             .kernel = of.kernel,
                             .initrd = of.initrd,
                             .guest_bytes = of.shape.memory_mib << 20,
                             .memory_bytes = process_memory(of.shape),
                             .processes = qemu_processes});
  return started ? one : nullptr;
}

std::shared_ptr<virtual_machine> qemu_engine::start(const vm_template& of, const std::string&) {
  auto one = std::make_shared<qemu_process>(link_, out_);
  bool started = one->start({.arguments = waiting_arguments(of.shape),
                             .memory = of.memory,
                             .root = root_,
                             .guest_bytes = of.shape.memory_mib << 20,
                             .memory_bytes = process_memory(of.shape),
                             .processes = qemu_processes});
  return started ? one : nullptr;
}

} // namespace

qemu_source::qemu_source(const qemu_settings& settings, const image& from, spawner_handle launcher,
                         reactor& loop, std::shared_ptr<way_out> out)
  : vm_source(
      std::make_unique<qemu_engine>(settings, from, std::move(launcher), loop, std::move(out)),
      from.manifest.start, loop) {}

} // namespace berth::machines
