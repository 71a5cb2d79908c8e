// SPDX-License-Identifier: Apache-2.0
// Templates on disk that are not what was written. With a guest that only waits: it boots soonest.
#include "machines/vm/vm_files.hpp"
#include "tests/machines/qemu/vm_fixture.hpp"
#include "tests/machines/suite/steps.hpp"

#include <algorithm>
#include <fstream>
#include <optional>

using namespace berth;
using namespace berth::test;

namespace fs = std::filesystem;

namespace {

/// A data directory, and servers that come and go on it. One for all cases: each template costs a
/// boot.
class shelf {
public:
  shelf() {
    auto found = vm_image();
    if (found)
      image_ = hostile_image(*found, "shelf");
  }
  ~shelf() { fs::remove_all(path_); }

  bool is_missing() const {
    if (image_)
      return false;
    skip("no image of virtual machines was made here");
    return true;
  }
  std::unique_ptr<vm_plant> open() const {
    machines::qemu_settings settings = patient();
    settings.data_dir = path_;
    auto server = std::make_unique<vm_plant>("templates", settings, image_, false);
    INFO(server->problem);
    REQUIRE(server->source);
    return server;
  }
  static running start(vm_plant& by, std::shared_ptr<const owned_fd> saved = {}) {
    machines::machine_spec spec{.id = "patient-x"};
    if (saved)
      spec.layers = {{1, std::move(saved)}};
    auto listener = std::make_shared<heard>();
    return {by.source->start(spec, listener), listener};
  }
  /// Has a machine come up, begun with a saved state or afresh, and gives what the source tells of
  /// itself then.
  std::string serve(vm_plant& by, std::shared_ptr<const owned_fd> saved = {}) const {
    running one = start(by, std::move(saved));
    CHECK(is_up(one));
    CHECK(answers(one));
    destroy(one);
    // It is written behind the first machine's back.
    const auto until = std::chrono::steady_clock::now() + hang_limit;
    while (file().empty() && std::chrono::steady_clock::now() < until)
      ::usleep(1'000);
    std::string told;
    for (const auto& fact : by.source->isolation())
      told += fact + "\n";
    return told;
  }
  std::string serve() const { return serve(*open()); }

  /// The template, if there is one.
  std::string file() const {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator{path_ + "/templates", error})
      if (entry.path().extension() == ".vmt")
        return entry.path().string();
    return {};
  }

private:
  const std::string path_ = runtime_dir_of(::getpid()) + "-shelf";
  std::optional<machines::image> image_;
};

const shelf& the_shelf() {
  static const shelf made;
  return made;
}

void flip_a_bit(const std::string& path) {
  const auto middle = static_cast<std::streamoff>(fs::file_size(path) / 2);
  std::fstream file{path, std::ios::in | std::ios::out | std::ios::binary};
  file.seekg(middle);
  char byte = static_cast<char>(file.get());
  file.seekp(middle);
  file.put(static_cast<char>(byte ^ 1));
}

constexpr std::uint64_t mib = 1 << 20;

} // namespace

TEST_CASE(
    "what is damaged on disk is refused with the reason: a template, and states bound to it") {
  const auto& at = the_shelf();
  if (at.is_missing())
    return;
  std::shared_ptr<const owned_fd> saved;
  {
    auto server = at.open();
    CHECK_THAT(at.serve(*server), Catch::Contains("booted in"));
    running one = shelf::start(*server);
    REQUIRE(is_up(one));
    one.machine->freeze_files(1);
    auto frozen = one.listener->next_files(machines::files_step::freeze);
    REQUIRE(frozen);
    REQUIRE(frozen->error.empty());
    saved = save(one, 1, 0);
    destroy(one);
  }
  // Another server finds both on disk.
  const std::string path = at.file();
  {
    auto server = at.open();
    at.serve(*server, saved);
    CHECK_THAT(at.serve(*server), Catch::Contains("read from disk"));
  }

  flip_a_bit(path);
  auto server = at.open();
  check_lost(shelf::start(*server, saved), "no template to start from: " + path + ": is damaged");
  // Machines that begin afresh have another made, which is not the state's.
  const std::string told = at.serve(*server);
  CHECK_THAT(told, Catch::Contains(path + ": was damaged, and is made anew"));
  CHECK_THAT(told, Catch::Contains("booted in"));
  check_lost(shelf::start(*server, saved), "the template that the saved state is bound to is gone");
}

TEST_CASE("a template in another's place is refused, and made anew") {
  const auto& at = the_shelf();
  if (at.is_missing())
    return;
  at.serve();
  const std::string path = at.file();
  std::string why;
  auto read = machines::vm_files::read_template(path, why);
  REQUIRE(read);
  read->key = "0123456789abcdef";
  std::string id;
  REQUIRE(machines::vm_files::write_template(path, *read, id).why.empty());
  const std::string told = at.serve();
  CHECK_THAT(told, Catch::Contains(path + ": was damaged, and is made anew"));
  CHECK_THAT(told, Catch::Contains("booted in"));
}

TEST_CASE("a virtual machine is as large as its limits need, as long as it has served nobody") {
  const auto& at = the_shelf();
  if (at.is_missing())
    return;
  auto server = at.open();
  running one = shelf::start(*server);
  REQUIRE(is_up(one));
  const machines::machine_limits large{.memory_bytes = 1'024 * mib, .disk_bytes = 32 * mib};
  one.machine->set_limits(large);
  CHECK(answers(one));
  const auto facts = server->source->isolation();
  const std::string wanted =
      "template of " + std::to_string(machines::vm_memory_mib(large)) + " MiB: key";
  CHECK(std::ranges::any_of(facts,
                            [&](const std::string& fact) { return fact.starts_with(wanted); }));
  // It serves: what is asked for from now on is the guest's to hold, in the memory that is there.
  one.machine->set_limits({.memory_bytes = 4'096 * mib, .disk_bytes = 32 * mib});
  CHECK(answers(one));
  destroy(one);
}
