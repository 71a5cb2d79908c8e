// SPDX-License-Identifier: Apache-2.0
#include "machines/firecracker/firecracker_machine.hpp"

#include "machines/firecracker/firecracker_process.hpp"

#include <mutex>

namespace berth::machines {

namespace {

/// What Firecracker says its version is, as soon as one has said it.
class version_note {
public:
  void take(const std::string& version) {
    std::lock_guard guard{mutex_};
    text_ = version;
  }
  std::string text() const {
    std::lock_guard guard{mutex_};
    return text_;
  }

private:
  mutable std::mutex mutex_;
  std::string text_; // guarded by mutex_
};

class firecracker_engine final : public vm_engine {
public:
  firecracker_engine(const firecracker_settings& settings, const image& from,
                     spawner_handle launcher, reactor& loop)
    : settings_(settings)
    , image_(from)
    , instance_(launcher.instance)
    , walls_(launcher.isolation)
    , common_(std::make_shared<firecracker_process::common>())
    , link_(std::make_shared<launcher_link>(std::move(launcher), loop)) {
    common_->settings = settings;
    common_->on_version = [note = version_](const std::string& version) { note->take(version); };
  }

  std::string_view kind() const override { return "firecracker"; }
  const vm_settings& settings() const override { return settings_; }
  const std::string& instance() const override { return instance_; }
  std::vector<std::string> facts() const override;
  void open() override { link_->open(); }
  vm_plan plan(std::uint64_t memory_mib) const override;
  /// It boots from files by their names.
  void read_image(vm_plan&) const override {}
  std::shared_ptr<virtual_machine> start(const vm_plan& of) override;
  std::shared_ptr<virtual_machine> start(const vm_template& of, const std::string& name) override;
  /// What a machine begins from must be known before its process starts.
  std::size_t spares() const override { return 0; }
  void shut_down() override { link_->shut_down(); }
  void close() override { link_->close(); }
  bool closed() const override { return link_->closed(); }
  bool wait_closed(std::chrono::milliseconds limit) override { return link_->wait_closed(limit); }
  void wait_ended(std::chrono::milliseconds limit) override { link_->wait_ended(limit); }

private:
  const firecracker_settings settings_;
  const image image_;
  const std::string instance_;
  const std::vector<std::string> walls_;
  const std::shared_ptr<version_note> version_ = std::make_shared<version_note>();
  const std::shared_ptr<firecracker_process::common> common_;
  const std::shared_ptr<launcher_link> link_;
};

std::vector<std::string> firecracker_engine::facts() const {
  const std::string version = version_->text();
  std::vector<std::string> facts{
      "Firecracker's version: " + (version.empty() ? "not asked yet" : version),
      "KVM: " + settings_.probe,
      "image: " + image_.manifest.name + "-" + image_.manifest.version + ", kernel "
          + image_.manifest.kernel_release + " (" + image_.manifest.kernel_origin + ")",
      "machine: " + std::to_string(settings_.vcpus)
          + " vCPU, disk read-only, entropy, vsock, no network; memory of clones by "
          + (settings_.memory_by_faults ? "userfaultfd" : "mapping its file")};
  facts.insert(facts.end(), walls_.begin(), walls_.end());
  return facts;
}

vm_plan firecracker_engine::plan(std::uint64_t memory_mib) const {
  vm_plan made;
  made.shape = {.runs_by = accelerator::kvm,
                .vcpus = settings_.vcpus,
                .memory_mib = memory_mib,
                .translation_mib = 0,
                .acpi = true};
  made.boot = {.kernel_words = machines::kernel_words(image_.manifest, false),
               .disk_mib = settings_.defaults.disk_bytes >> 20,
               .hostname = "berth"};
  made.key =
      key_of({"firecracker", std::to_string(settings_.vcpus), std::to_string(memory_mib),
              firecracker_kernel_words(made.boot), image_.manifest.version, image_.manifest.guest,
              marks_of(settings_.binary), std::to_string(settings_.disk_bytes_per_second),
              std::to_string(settings_.disk_operations_per_second), processor_model()});
  return made;
}

std::shared_ptr<virtual_machine> firecracker_engine::start(const vm_plan& of) {
  auto one = std::make_shared<firecracker_process>(link_, common_, of.shape, "template");
  return one->start(firecracker_kernel_words(of.boot)) ? one : nullptr;
}

std::shared_ptr<virtual_machine> firecracker_engine::start(const vm_template& of,
                                                           const std::string& name) {
  if (link_->closed())
    return nullptr;
  auto one = std::make_shared<firecracker_process>(link_, common_, of.shape, name);
  one->based_on(of.memory);
  return one;
}

} // namespace

std::string firecracker_kernel_words(const vm_boot& boot) {
  std::string words = boot.kernel_words + (boot.kernel_words.empty() ? "" : " ")
                      + "console=ttyS0 reboot=k panic=-1 pci=off quiet mitigations=off"
                      + " berth.vsock_port=" + std::to_string(guest_vsock_port)
                      + " berth.disk_mib=" + std::to_string(boot.disk_mib);
  if (!boot.hostname.empty())
    words += " berth.hostname=" + boot.hostname;
  return words;
}

firecracker_source::firecracker_source(const firecracker_settings& settings, const image& from,
                                       spawner_handle launcher, reactor& loop)
  : vm_source(std::make_unique<firecracker_engine>(settings, from, std::move(launcher), loop),
              from.manifest.start, loop) {}

} // namespace berth::machines
