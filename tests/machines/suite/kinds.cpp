// SPDX-License-Identifier: Apache-2.0
#include "tests/machines/suite/kinds.hpp"

#include "machines/image/initrd.hpp"
#include "tests/machines/qemu/vm_fixture.hpp"
#include "tests/support/skip.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>

namespace berth::test {

namespace fs = std::filesystem;

namespace {

/// A directory of this process, gone at its end. Processes that are forked off share it.
class scratch {
public:
  scratch() { fs::create_directories(path_); }
  ~scratch() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  const std::string& path() const { return path_; }

private:
  const std::string path_ = runtime_dir_of(::getpid()) + "-data";
};

/// From the start: no case may be the first to make it in a process that is killed.
const scratch shared_data;

class namespace_station final : public station {
public:
  namespace_station(const std::string& label, guest_program program)
    : made_(settings_of(label, program)) {
    source = made_.source.get();
    problem = made_.problem;
    keeper = made_.spawner_pid;
    instance = made_.instance;
    runtime_dir = made_.settings.runtime_dir;
  }
  ~namespace_station() override { end(); }

  void end() override {
    source = nullptr;
    made_.source.reset();
    made_.loop.reset();
  }

private:
  static machines::namespace_settings settings_of(const std::string& label, guest_program program) {
    bool lies = program == guest_program::hostile;
    auto settings =
        test_settings(std::string{BERTH_BUILD_DIR} + (lies ? "/lib/probe" : "/lib/berth"));
    settings.runtime_dir += "-" + label;
    if (lies)
      settings.hello_within = std::chrono::seconds{5};
    return settings;
  }

  plant made_;
};

class qemu_station final : public station {
public:
  qemu_station(const std::string& label, guest_program program)
    : made_(label, settings_of(label, program), image_of(program)) {
    if (made_.problem.empty())
      source = made_.source.get();
    problem = made_.problem;
    keeper = made_.launcher_pid;
    instance = made_.source ? made_.source->instance() : "";
    runtime_dir = made_.settings.runtime_dir;
  }
  ~qemu_station() override { end(); }

  void end() override {
    source = nullptr;
    made_.source.reset();
    made_.loop.reset();
  }

private:
  static machines::qemu_settings settings_of(const std::string& label, guest_program program) {
    machines::qemu_settings settings = patient();
    settings.data_dir = data_dir();
    if (::access(settings.data_dir.c_str(), W_OK) != 0)
      // Of another user, who has its own; gone with the runtime directory.
      settings.data_dir = runtime_dir_of(::getpid()) + "-" + label + "/data";
    if (program == guest_program::hostile)
      // Of the template, too, which such a guest has up in no time.
      settings.hello_within = std::chrono::seconds{20};
    return settings;
  }
  static std::optional<machines::image> image_of(guest_program program) {
    auto found = vm_image();
    if (program == guest_program::real || !found)
      return {};
    return hostile_image(*found);
  }

  vm_plant made_;
};

template <class Station>
std::unique_ptr<station> make(const std::string& label, guest_program program) {
  return std::make_unique<Station>(label, program);
}

std::string content_of(const std::string& path) {
  std::ifstream in{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}

kind namespace_kind() {
  const std::string late = "did not say hello in time";
  const std::string unasked = "did not begin with hello";
  const std::string length = "a frame of impossible length";
  const std::string nonsense = "what is no frame";
  return {.name = "namespace",
          .make = make<namespace_station>,
          .languages = {"bash", "go", "javascript", "python", "rust"},
          .early_lies = {{"silent", late},
                         {"dies", "status 7"},
                         {"closes", "closed its channel"},
                         {"giant", length},
                         {"empty", length},
                         {"cut", late},
                         {"nested", nonsense},
                         {"random", nonsense},
                         {"old", "speaks version 99"},
                         {"flood", unasked}},
          .lies = {{"dies", "status 7"},
                   {"closes", "closed its channel"},
                   {"giant", length},
                   {"empty", length},
                   {"nested", nonsense},
                   {"random", nonsense},
                   {"hello", "said hello twice"},
                   {"silent", ""},
                   {"cut", ""},
                   {"flood", ""},
                   {"forger", ""}}};
}

/// Virtual machines of any hypervisor.
kind vm_kind() {
  const std::string late = "not up in time";
  const std::string length = "a frame of impossible length";
  const std::string nonsense = "what is no frame";
  const std::string twice = "said hello twice";
  const std::string panic = "stopped by itself: Kernel panic";
  const std::string reboot = "stopped by itself: berth: it was told to";
  auto image = vm_image();
  auto languages = image ? image->manifest.languages : std::vector<std::string>{};
  std::ranges::sort(languages);
  // The hello is the template's: what a clone is asked for first is to be made anew.
  return {.name = {},
          .make = {},
          .languages = std::move(languages),
          .early_lies = {{"silent", late},
                         {"dies", panic},
                         {"reboots", reboot},
                         {"closes", late},
                         {"giant", length},
                         {"empty", length},
                         {"cut", late},
                         {"nested", nonsense},
                         {"random", nonsense},
                         {"hello", twice},
                         {"flood", late}},
          // The channel is the hypervisor's: who closes the inner end is silent, no more.
          .lies = {{"dies", panic},
                   {"reboots", reboot},
                   {"giant", length},
                   {"empty", length},
                   {"nested", nonsense},
                   {"random", nonsense},
                   {"hello", twice},
                   {"closes", ""},
                   {"silent", ""},
                   {"cut", ""},
                   {"flood", ""}},
          .own_kernel = true,
          .whole_states = true,
          .summed_states = true};
}

kind named(kind one, const std::string& name, decltype(kind::make) makes) {
  one.name = name;
  one.make = std::move(makes);
  return one;
}

} // namespace

// `instant` machines are none: they run nothing, and so promise nothing of this. The languages of
// virtual machines are those of the image that tests boot, which has Python and Bash: the others
// would take minutes to be fetched, and are run by the same guest.
const std::vector<kind>& all_kinds() {
  static const std::vector<kind> kinds{
      namespace_kind(),
      named(vm_kind(), "qemu", make<qemu_station>),
  };
  return kinds;
}

std::vector<const kind*> kind_pointers() {
  std::vector<const kind*> all;
  for (const auto& one : all_kinds())
    all.push_back(&one);
  return all;
}

station& shared_station(const kind& of) {
  static std::map<std::string, std::unique_ptr<station>> stations;
  auto& at = stations[of.name];
  if (!at)
    at = of.make(of.name + "-shared", guest_program::real);
  return *at;
}

bool is_missing(const station& at) {
  if (at.source != nullptr)
    return false;
  skip("no machine of this kind can be made here: " + at.problem);
  return true;
}

std::vector<pid_t> station::processes() const {
  std::vector<pid_t> found;
  std::ifstream children{"/proc/" + std::to_string(keeper) + "/task/" + std::to_string(keeper)
                         + "/children"};
  for (pid_t pid = 0; children >> pid;)
    found.push_back(pid);
  return found;
}

const std::string& data_dir() {
  return shared_data.path();
}

machines::image image_with(const machines::image& from, const std::string& program,
                           const std::string& directory, const std::string& version) {
  fs::create_directories(directory);
  machines::image made{directory, from.manifest};
  made.manifest.version = version;
  std::error_code error;
  fs::create_symlink(fs::absolute(from.kernel()), made.kernel(), error);
  fs::create_symlink(fs::absolute(from.root()), made.root(), error);
  made.manifest.command_line += " rdinit=/other-init";
  // The kernel unpacks archives one after the other.
  machines::initrd other;
  other.add_file("other-init", content_of(std::string{BERTH_BUILD_DIR} + program), true);
  std::ofstream{made.initrd(), std::ios::binary} << content_of(from.initrd()) << other.archive();
  return made;
}

machines::image hostile_image(const machines::image& from, const std::string& version) {
  machines::image made =
      image_with(from, "/lib/probe/berth-probe-init", data_dir() + "/" + version, version);
  made.manifest.start.clear(); // there is nobody in it to run it
  return made;
}

} // namespace berth::test
